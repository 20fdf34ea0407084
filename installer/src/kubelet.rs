//! A process's arguments to the flags that tell its FlexVolume plugin directory: kubelet's own
//! (`cmd/kubelet/app/options`), and those of programs that contain a kubelet.

pub(crate) mod config;
pub(crate) mod findings;
pub(crate) mod process;

use std::path::Path;

/// The directory of a kubelet without configuration (`pkg/kubelet/apis/config/v1beta1`).
pub(crate) const DEFAULT_DIRECTORY: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
/// The directory of the kubelet inside MicroShift, which cannot be changed (`pkg/node/kubelet.go`).
pub(crate) const MICROSHIFT_DIRECTORY: &str = "/var/lib/microshift/kubelet-plugins/volume/exec";

/// Which program a kubelet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// kubelet itself, in its own file or in hyperkube. All its arguments are visible.
    Kubelet,
    /// k3s, which contains a kubelet. It may hide its arguments, and has a file for them.
    K3s,
    /// MicroShift, which contains a kubelet.
    MicroShift,
    /// kubelite of MicroK8s, which contains a kubelet. Its arguments are in a file.
    MicroK8s,
}

/// The flags of a kubelet that matter here. The last of two equal ones holds, as with kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) program: Program,
    /// `--volume-plugin-dir`.
    pub(crate) plugin_dir: Option<String>,
    /// `--config`.
    pub(crate) config: Option<String>,
    /// `--config-dir`, whose files come after that of `--config`.
    pub(crate) config_dir: Option<String>,
    /// `--root-dir`; it has no key in a configuration file.
    pub(crate) root_dir: Option<String>,
    /// `--kubelet-args-file` of kubelite.
    pub(crate) args_file: Option<String>,
}

/// Where a kubelet without `--root-dir` keeps its Pods.
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/kubelet";

impl Flags {
    /// The flags in `cmdline`, the text of a `/proc/PID/cmdline`, if the process is a kubelet.
    pub(crate) fn parse(cmdline: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(cmdline);
        let text = text.trim_end_matches('\0');
        // A process that changes its title (ps(1)) leaves one text with spaces.
        let argv: Vec<&str> = match text.contains('\0') {
            true => text.split('\0').collect(),
            false => text.split_whitespace().collect(),
        };
        let (first, rest) = argv.split_first()?;
        let name = Path::new(first).file_name()?.to_str()?;
        let (program, args) = match (name, rest.first().copied()) {
            ("kubelet", _) => (Program::Kubelet, rest),
            ("hyperkube", Some("kubelet")) => (Program::Kubelet, &rest[1..]),
            ("k3s" | "k3s-server" | "k3s-agent", _) if is_k3s_node(name, rest) => {
                (Program::K3s, rest)
            }
            ("microshift", Some("run")) => (Program::MicroShift, &rest[1..]),
            ("kubelite", _) => (Program::MicroK8s, rest),
            _ => return None,
        };
        let mut flags = Self::none(program);
        match program {
            Program::Kubelet => flags.add(args),
            Program::K3s => flags.add_embedded(&values(args, "kubelet-arg")),
            Program::MicroShift => {}
            Program::MicroK8s => flags.args_file = values(args, "kubelet-args-file").pop(),
        }
        Some(flags)
    }

    /// Those of `program` without any argument.
    pub(crate) fn none(program: Program) -> Self {
        Self {
            program,
            plugin_dir: None,
            config: None,
            config_dir: None,
            root_dir: None,
            args_file: None,
        }
    }

    /// Adds the flags in `text`, the file of kubelite's arguments: one a line, with variables of its
    /// environment as `variable` has them.
    pub(crate) fn add_file(&mut self, text: &str, variable: impl Fn(&str) -> Option<String>) {
        let args: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('-'))
            .flat_map(|line| line.splitn(2, char::is_whitespace))
            .map(|arg| expand(arg.trim().trim_matches('"'), &variable))
            .collect();
        self.add(&args);
    }

    /// Adds the flags in `args`, kubelet's arguments.
    fn add<S: AsRef<str>>(&mut self, args: &[S]) {
        for (name, flag) in [
            ("volume-plugin-dir", &mut self.plugin_dir),
            ("config", &mut self.config),
            ("config-dir", &mut self.config_dir),
            ("root-dir", &mut self.root_dir),
        ] {
            if let Some(value) = values(args, name).pop() {
                *flag = Some(value);
            }
        }
    }

    /// Adds the flags in `args`, which are kubelet's without the dashes, as in k3s's `kubelet-arg`.
    pub(crate) fn add_embedded(&mut self, args: &[String]) {
        let args: Vec<String> = args
            .iter()
            .map(|arg| format!("--{}", arg.trim_start_matches('-')))
            .collect();
        self.add(&args);
    }
}

/// `text` with the values of `$NAME` and `${NAME}`, as a shell has them.
pub(crate) fn expand(text: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, left) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some(found) => found,
            None => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
            }
        };
        expanded.push_str(&variable(name).unwrap_or_default());
        rest = left;
    }
    expanded + rest
}

fn is_k3s_node(name: &str, args: &[&str]) -> bool {
    name != "k3s" || args.iter().any(|arg| matches!(*arg, "server" | "agent"))
}

/// The values of every `--name=value` and `--name value` in `args`; one dash will do.
fn values<S: AsRef<str>>(args: &[S], name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = args.iter().map(AsRef::as_ref);
    while let Some(arg) = rest.next() {
        let Some(option) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            continue;
        };
        match option.split_once('=') {
            Some((key, value)) if key == name => found.push(value.to_owned()),
            None if option == name => found.extend(rest.next().map(str::to_owned)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Flags, Program, expand};

    fn flags(argv: &str) -> Option<Flags> {
        Flags::parse((argv.split(' ').collect::<Vec<_>>().join("\0") + "\0").as_bytes())
    }

    #[test]
    fn reads_kubelets_flags_in_every_form() {
        for (argv, dir, config) in [
            ("kubelet", None, None),
            ("/usr/bin/kubelet --volume-plugin-dir=/a", Some("/a"), None),
            (
                "/usr/bin/kubelet --volume-plugin-dir /a --v=2",
                Some("/a"),
                None,
            ),
            ("kubelet -volume-plugin-dir /a", Some("/a"), None),
            (
                "kubelet --config /c --volume-plugin-dir=/a --volume-plugin-dir=/b",
                Some("/b"),
                Some("/c"),
            ),
            ("kubelet --config=/c --config-dir=/d", None, Some("/c")),
            ("kubelet --volume-plugin-dir", None, None),
            ("kubelet --config-map=/x --xconfig=/y", None, None),
            (
                "/hyperkube kubelet --volume-plugin-dir=/a",
                Some("/a"),
                None,
            ),
            (
                "/usr/local/bin/k3s agent --kubelet-arg=volume-plugin-dir=/a",
                Some("/a"),
                None,
            ),
            (
                "k3s server --kubelet-arg v=2 --kubelet-arg config=/c",
                None,
                Some("/c"),
            ),
            (
                "k3s --debug server --volume-plugin-dir=/not-kubelets",
                None,
                None,
            ),
        ] {
            let flags = flags(argv).expect(argv);
            assert_eq!(
                (flags.plugin_dir.as_deref(), flags.config.as_deref()),
                (dir, config),
                "{argv}"
            );
        }
    }

    #[test]
    fn kubelites_arguments_are_in_a_file() {
        let argv = "/snap/microk8s/1/kubelite --scheduler-args-file=/s --kubelet-args-file=/k";
        let mut flags = flags(argv).unwrap();
        assert_eq!(flags.args_file.as_deref(), Some("/k"));
        let text = "# --volume-plugin-dir=/no\n--root-dir=${SNAP_COMMON}/kubelet\n\n\
                    --volume-plugin-dir $SNAP_COMMON/exec\n--config=\"/c\"\n";
        flags.add_file(text, |name| {
            (name == "SNAP_COMMON").then(|| "/snap".to_owned())
        });
        assert_eq!(flags.root_dir.as_deref(), Some("/snap/kubelet"));
        assert_eq!(flags.plugin_dir.as_deref(), Some("/snap/exec"));
        assert_eq!(expand("a$", &|_| None), "a");
        assert_eq!(expand("a${b", &|_| None), "a{b");
    }

    #[test]
    fn every_program_that_the_driver_knows_as_kubelet_is_found() {
        for name in alicloud_oss::kubelet::group::PROGRAMS {
            let argv = match name {
                "k3s" => "k3s server",
                "hyperkube" => "hyperkube kubelet",
                "microshift" => "microshift run",
                // They start kubelet as a program of its own.
                "rke2" | "k0s" => continue,
                name => name,
            };
            assert!(flags(argv).is_some(), "{argv}");
        }
    }

    #[test]
    fn other_programs_are_none() {
        for argv in [
            "",
            "/usr/bin/kubelet-wrapper --volume-plugin-dir=/a",
            "hyperkube apiserver --volume-plugin-dir=/a",
            "k3s kubectl get pods",
            "vi kubelet",
            "rke2 server",
            "microshift show-config",
        ] {
            assert_eq!(flags(argv), None, "{argv}");
        }
    }

    #[test]
    fn a_changed_title_is_taken_apart() {
        let flags = Flags::parse(b"/usr/local/bin/k3s server\0\0\0\0").unwrap();
        assert_eq!(flags.program, Program::K3s);
        assert_eq!(
            Flags::parse(b"microshift\0run\0").unwrap().program,
            Program::MicroShift
        );
    }
}
