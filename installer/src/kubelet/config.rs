//! The text of a configuration file to the one or two keys that matter here. kubelet reads YAML, of
//! which JSON is a part (`sigs.k8s.io/yaml`); nothing else of the files is checked.

use anyhow::{Context as _, Result};
use saphyr::{LoadableYamlNode as _, Yaml};

/// `volumePluginDir` of the `KubeletConfiguration` in `text`; an empty one is none.
pub(crate) fn plugin_dir(text: &str) -> Result<Option<String>> {
    let documents = load(text)?;
    let value = top_level(&documents, "volumePluginDir")
        .and_then(Yaml::as_str)
        .filter(|value| !value.is_empty());
    Ok(value.map(str::to_owned))
}

/// The values of `kubelet-arg` in `text`, a configuration file of k3s: a text or a list of them.
pub(crate) fn k3s_kubelet_args(text: &str) -> Result<Vec<String>> {
    let documents = load(text)?;
    let texts = |node: &Yaml| match node.as_sequence() {
        Some(list) => list
            .iter()
            .filter_map(Yaml::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>(),
        None => node.as_str().map(str::to_owned).into_iter().collect(),
    };
    // `kubelet-arg+` adds to the file before, as in the drop-in files.
    Ok(["kubelet-arg", "kubelet-arg+"]
        .iter()
        .filter_map(|key| top_level(&documents, key))
        .flat_map(texts)
        .collect())
}

fn load(text: &str) -> Result<Vec<Yaml<'_>>> {
    Yaml::load_from_str(text).context("it is neither YAML nor JSON")
}

fn top_level<'a, 'y>(documents: &'a [Yaml<'y>], key: &str) -> Option<&'a Yaml<'y>> {
    documents
        .iter()
        .find_map(|document| document.as_mapping_get(key))
}

#[cfg(test)]
mod tests {
    use super::{k3s_kubelet_args, plugin_dir};

    #[test]
    fn finds_the_top_level_key() {
        for (text, expected) in [
            (
                "kind: KubeletConfiguration\nvolumePluginDir: /a # x\n",
                Some("/a"),
            ),
            (
                "---\nvolumePluginDir: \"/with blank\"\n",
                Some("/with blank"),
            ),
            (
                "{\"volumePluginDir\":\"/j\",\"x\":{\"volumePluginDir\":\"/no\"}}",
                Some("/j"),
            ),
            ("x:\n  volumePluginDir: /no\n", None),
            ("# volumePluginDir: /no\nvolumePluginDir: \"\"\n", None),
            ("", None),
            ("just text", None),
        ] {
            assert_eq!(plugin_dir(text).unwrap().as_deref(), expected, "{text}");
        }
        assert!(plugin_dir("a: [").is_err());
    }

    #[test]
    fn k3s_has_a_text_or_a_list() {
        assert_eq!(k3s_kubelet_args("kubelet-arg: a=b\n").unwrap(), ["a=b"]);
        assert_eq!(
            k3s_kubelet_args("token: x\nkubelet-arg:\n- a=b\n- \"c=d\"\n").unwrap(),
            ["a=b", "c=d"]
        );
        assert!(k3s_kubelet_args("token: x\n").unwrap().is_empty());
    }
}
