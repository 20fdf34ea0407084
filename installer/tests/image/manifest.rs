//! The Pod that a kustomize overlay makes: the base's DaemonSet with the overlay's patch merged as
//! the API server's strategic merge does, as far as these manifests use it: maps merge by key, lists
//! of named things by their name, other lists are replaced.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The `spec` of a Pod.
#[derive(Clone)]
pub struct PodSpec(pub Value);

impl PodSpec {
    /// The Pod of the overlay `deploy/NAME`.
    pub fn of_overlay(name: &str) -> Self {
        let overlay = deploy().join(name);
        let kustomization = read(&overlay.join("kustomization.yaml"));
        assert_eq!(kustomization["resources"], json!(["../base"]));
        let mut daemon_set = read(&deploy().join("base/daemonset.yaml"));
        for patch in kustomization["patches"].as_array().unwrap() {
            let patch = read(&overlay.join(patch["path"].as_str().unwrap()));
            if patch["kind"] == "DaemonSet" {
                merge(&mut daemon_set, patch);
            }
        }
        let spec = daemon_set["spec"]["template"]["spec"].take();
        assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
        Self(spec)
    }

    /// The container that stays.
    pub fn container(&self) -> &Value {
        &self.0["containers"][0]
    }

    /// The containers that run before it, one after the other, to their end.
    pub fn init_containers(&self) -> impl Iterator<Item = &Value> {
        self.0["initContainers"].as_array().into_iter().flatten()
    }

    /// All containers of the Pod, to be changed alike.
    fn all(&mut self) -> impl Iterator<Item = &mut Value> {
        let pod = self.0.as_object_mut().unwrap().iter_mut();
        pod.filter(|(field, _)| matches!(field.as_str(), "initContainers" | "containers"))
            .flat_map(|(_, containers)| containers.as_array_mut().unwrap())
    }

    /// Sets a variable of the containers' environment, as an administrator's own patch would.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        for container in self.all() {
            let list = list(container, "env");
            list.retain(|env| env["name"] != name);
            list.push(json!({"name": name, "value": value}));
        }
        self
    }

    /// Shows the host's directory `path` in the containers at the same path, read-only.
    pub fn host_path(self, path: &str) -> Self {
        self.volume(
            json!({"name": "packages", "hostPath": {"path": path, "type": "Directory"}}),
            path,
        )
    }

    /// Shows the ConfigMap `name` in the containers at `path`.
    pub fn config_map(self, name: &str, path: &str) -> Self {
        self.volume(json!({"name": name, "configMap": {"name": name}}), path)
    }

    fn volume(mut self, volume: Value, path: &str) -> Self {
        let mount = json!({"name": volume["name"], "mountPath": path, "readOnly": true});
        list(&mut self.0, "volumes").push(volume);
        for container in self.all() {
            list(container, "volumeMounts").push(mount.clone());
        }
        self
    }

    /// Runs the installer with these arguments instead, as a Job with a single container does.
    pub fn args(mut self, args: &[&str]) -> Self {
        let mut command = vec!["/oss-installer"];
        command.extend(args);
        self.0.as_object_mut().unwrap().remove("initContainers");
        self.0["containers"][0]["command"] = json!(command);
        self
    }

    /// Leaves a capability out that the containers add.
    pub fn without(mut self, capability: &str) -> Self {
        for container in self.all() {
            let added = list(&mut container["securityContext"]["capabilities"], "add");
            added.retain(|added| added != capability);
        }
        self
    }

    /// The capabilities that the container adds.
    pub fn added(&self) -> Vec<String> {
        let added = self
            .container()
            .pointer("/securityContext/capabilities/add")
            .unwrap();
        serde_json::from_value(added.clone()).unwrap()
    }

    /// The variable `name` of the container's environment.
    pub fn variable(&self, name: &str) -> &str {
        let list = self.container()["env"].as_array().into_iter().flatten();
        let found = list.clone().find(|env| env["name"] == name);
        found.and_then(|env| env["value"].as_str()).unwrap()
    }
}

/// The list `name` of `object`, made if it is missing.
fn list<'a>(object: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let list = &mut object[name];
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap()
}

/// A quantity of bytes as Kubernetes writes it.
pub fn bytes(quantity: &str) -> u64 {
    let at = quantity.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = quantity.split_at(at.unwrap_or(quantity.len()));
    let factor = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => panic!("{quantity}"),
    };
    number.parse::<u64>().unwrap() * factor
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let documents = Yaml::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1, "{}", path.display());
    value(&documents[0])
}

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Value(Scalar::Boolean(bool)) => json!(bool),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(list) => list.iter().map(value).collect(),
        Yaml::Mapping(map) => {
            let pairs = map.iter();
            let pairs = pairs.map(|(key, of)| (key.as_str().unwrap().to_owned(), value(of)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        other => panic!("{other:?}"),
    }
}

/// The key by which the elements of a list are told apart (`patchMergeKey` in
/// `k8s.io/api/core/v1`); other lists are replaced as a whole.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

fn merge(base: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *base = patch;
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (field, new) in patch {
        assert!(!field.starts_with('$'), "a directive: {field}");
        let old = &mut base[&field];
        match (merge_key(&field), old.as_array_mut(), new) {
            (Some(key), Some(old), Value::Array(new)) => {
                for new in new {
                    match old.iter_mut().find(|old| old[key] == new[key]) {
                        Some(old) => merge(old, new),
                        None => old.push(new),
                    }
                }
            }
            (_, _, new @ Value::Object(_)) => merge(old, new),
            (_, _, Value::Null) => {
                base.as_object_mut().unwrap().remove(&field);
            }
            (_, _, new) => *old = new,
        }
    }
}

#[test]
fn patches_merge_as_in_the_api_server() {
    let mut base = json!({"a": {"b": 1}, "containers": [
        {"name": "x", "command": ["old", "args"], "env": [{"name": "E", "value": "1"}]}]});
    merge(
        &mut base,
        json!({"a": {"c": 2}, "volumes": [{"name": "v"}], "containers": [
            {"name": "x", "command": ["new"], "env": [{"name": "F", "value": "2"}, {"name": "E", "value": "3"}]},
            {"name": "y"}]}),
    );
    assert_eq!(
        base,
        json!({"a": {"b": 1, "c": 2}, "volumes": [{"name": "v"}], "containers": [
            {"name": "x", "command": ["new"], "env": [{"name": "E", "value": "3"}, {"name": "F", "value": "2"}]},
            {"name": "y"}]})
    );
}
