//! The unit files of volumes: a template, and the slices that contain its instances. The driver's
//! package installs them for the usual paths; where they are missing, or say something else than this
//! driver and the node configuration do, the driver writes its own under /run.

use crate::config::FILE_VARIABLE;
use crate::ossfs::systemd::{self, own_program};
use crate::request::location::METADATA_SERVICES;
use anyhow::{Context as _, Result};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The directories of an administrator's own files (systemd.unit(5)).
const ADMINISTRATOR_DIRS: [&str; 2] = ["/etc/systemd/system", "/usr/local/lib/systemd/system"];
/// The directories where the driver's package installs them.
const PACKAGE_DIRS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Where the driver writes them if none of these is right; it has priority over the package's.
const RUNTIME_DIR: &str = "/run/systemd/system";

/// The template as the driver's package installs it, for the usual paths and limits.
const PACKAGED_TEMPLATE: &str = include_str!("../../packaging/systemd/alicloud-oss@.service");
const TEMPLATE: &str = "alicloud-oss@.service";
/// The slices: a slice whose name has a dash in it is in one of the name before the dash.
const SLICES: [(&str, &str); 2] = [
    (
        "alicloud.slice",
        include_str!("../../packaging/systemd/alicloud.slice"),
    ),
    (
        systemd::SLICE,
        include_str!("../../packaging/systemd/alicloud-oss.slice"),
    ),
];
/// What of the packaged template depends on the node.
const PACKAGED_PROGRAM: &str =
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/alicloud~oss/oss";
const PACKAGED_VOLUMES: &str = "/run/alicloud-oss/volumes";
const MEMORY_LINE: &str = "MemoryMax=1024M\n";
/// The line of it after which `Environment=` is inserted.
const SLICE_LINE: &str = "Slice=alicloud-oss.slice\n";
/// The line of it after which the name servers are inserted that it denies.
const DENY_LINE: &str = "IPAddressDeny=169.254.0.0/16 fe80::/10 100.100.100.200\n";
/// The directives that older versions of systemd warn of, and the version that brought them
/// (systemd's NEWS).
const SINCE: [(&str, u32); 4] = [
    ("TasksMax=", 227),
    ("MemoryMax=", 231),
    ("IPAddress", 235),
    ("OOMPolicy=", 243),
];
/// For a volume whose ossfs takes its keys from the metadata service, whose address this allows again.
const RAM_ROLE: &str = "[Service]\nIPAddressAllow=100.100.100.200\n";

/// The files that the driver may have written under /run, there or not: for who removes the driver.
pub fn runtime_files() -> [PathBuf; 3] {
    [TEMPLATE, SLICES[0].0, SLICES[1].0].map(|name| Path::new(RUNTIME_DIR).join(name))
}

/// What the template says about this node.
#[derive(Clone, Copy)]
struct Node<'a> {
    program: &'a str,
    volumes: &'a str,
    config: Option<&'a str>,
    /// In bytes.
    memory_limit: u64,
    /// The node's name servers.
    resolvers: &'a [IpAddr],
}

/// The template on a node with that version of systemd.
fn template(node: Node, version: u32) -> String {
    let quote = |text: &str| {
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('%', "%%");
        format!("\"{text}\"")
    };
    let environment = node.config.map_or(String::new(), |file| {
        format!(
            "Environment={}\n",
            quote(&format!("{FILE_VARIABLE}={file}"))
        )
    });
    let denied = node.resolvers.iter().filter(|address| is_denied(address));
    // Name servers on the node itself often have such an address (NodeLocal DNSCache: 169.254.20.10).
    let allowed: String = denied.map(|a| format!("IPAddressAllow={a}\n")).collect();
    let megabytes = node.memory_limit >> 20;
    // The path of a command takes no quotes in systemd 219.
    let text = PACKAGED_TEMPLATE
        .replace(PACKAGED_PROGRAM, &node.program.replace('%', "%%"))
        .replace(PACKAGED_VOLUMES, &node.volumes.replace('%', "%%"))
        .replace(MEMORY_LINE, &format!("MemoryMax={megabytes}M\n"))
        .replace(DENY_LINE, &format!("{DENY_LINE}{allowed}"))
        .replace(SLICE_LINE, &format!("{SLICE_LINE}{environment}"));
    let is_known = |line: &str| {
        SINCE
            .iter()
            .all(|(directive, since)| !line.starts_with(directive) || *since <= version)
    };
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| is_known(line))
        .map(str::to_owned)
        .collect();
    if version < 231 {
        lines.push(format!("MemoryLimit={megabytes}M"));
    }
    lines.join("\n") + "\n"
}

/// Whether the template denies `address`.
fn is_denied(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || METADATA_SERVICES.contains(address),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The name servers in `text`, that of resolv.conf(5), as far as libc takes them: the first three.
fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_one = words.next() == Some("nameserver");
            let address = words.next().filter(|_| is_one)?;
            // Without the interface of a link-local address.
            address.split('%').next()?.parse().ok()
        })
        .take(3)
        .collect()
}

/// Installs the template for volumes whose directories are in `volumes`, of which each may use
/// `memory_limit` bytes of memory, and the slices. What an administrator has put there is not touched.
pub(crate) fn install(volumes: &Path, memory_limit: u64) -> Result<()> {
    let (program, config) = (own_program()?, std::env::var(FILE_VARIABLE).ok());
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let node = Node {
        program: &program,
        volumes: &volumes.to_string_lossy(),
        config: config.as_deref(),
        memory_limit,
        resolvers: &resolvers(&resolv_conf),
    };
    let mut written = false;
    for (name, text) in SLICES {
        written |= !is_right(name, |found| found == text) && write(name, text)?;
    }
    // As written for whatever version: asking for it takes a process.
    let versions = SINCE.iter().map(|(_, since)| *since).chain([0]);
    let possible: Vec<String> = versions.map(|version| template(node, version)).collect();
    if !is_right(TEMPLATE, |found| possible.iter().any(|text| text == found)) {
        written |= write(TEMPLATE, &template(node, systemd::version()?))?;
    }
    match written {
        true => systemd::reload(),
        false => Ok(()),
    }
}

/// Allows the instance of the volume `id` to reach the metadata service: its ossfs has the keys of a RAM
/// role from there.
pub(crate) fn allow_metadata(id: &str) -> Result<()> {
    let directory = drop_ins(id);
    let path = directory.join("ram-role.conf");
    let is_there = || std::fs::read_to_string(&path).is_ok_and(|found| found == RAM_ROLE);
    // Older versions deny nothing, and would warn.
    if is_there() || systemd::version()? < 235 {
        return Ok(());
    }
    std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(&path, RAM_ROLE))
        .with_context(|| format!("write {}", path.display()))?;
    log::info!("installed {}", path.display());
    systemd::reload()
}

/// Removes what the driver has written for the instance of the volume `id` alone.
pub(crate) fn remove_drop_ins(id: &str) {
    let path = drop_ins(id);
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("remove {}: {e}", path.display());
        }
        _ => {}
    }
}

/// The directory of drop-in files for the instance of the volume `id` alone (systemd.unit(5)).
fn drop_ins(id: &str) -> PathBuf {
    Path::new(RUNTIME_DIR).join(format!("{}.d", systemd::unit(id)))
}

/// Whether the unit file `name` that systemd uses is as `wanted`, or an administrator's.
fn is_right(name: &str, wanted: impl FnOnce(&str) -> bool) -> bool {
    let at = |directory: &&str| Path::new(directory).join(name);
    if ADMINISTRATOR_DIRS.iter().any(|dir| at(dir).exists()) {
        return true;
    }
    // systemd uses the first that exists.
    let mut found = [RUNTIME_DIR]
        .iter()
        .chain(&PACKAGE_DIRS)
        .filter_map(|dir| std::fs::read_to_string(at(dir)).ok());
    found.next().is_some_and(|found| wanted(&found))
}

/// Writes a unit file under /run. True.
fn write(name: &str, text: &str) -> Result<bool> {
    let path = Path::new(RUNTIME_DIR).join(name);
    // Calls that run at once write the same; a rename replaces the file at once.
    let temporary = Path::new(RUNTIME_DIR).join(format!(".{name}.{}", nix::unistd::gettid()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .with_context(|| format!("write {}", path.display()))?;
    log::info!("installed {}", path.display());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{
        DENY_LINE, MEMORY_LINE, Node, PACKAGED_PROGRAM, PACKAGED_TEMPLATE, PACKAGED_VOLUMES, SINCE,
        SLICE_LINE, resolvers, template,
    };

    const NODE: Node = Node {
        program: "/a/alicloud~oss/oss",
        volumes: "/run/alicloud-oss/volumes",
        config: Some("/e/50%.json"),
        memory_limit: 512 << 20,
        resolvers: &[],
    };

    #[test]
    fn the_template_runs_the_driver_by_its_path() {
        let text = template(NODE, 252);
        for line in [
            "ExecStart=/a/alicloud~oss/oss serve /run/alicloud-oss/volumes/%i",
            "Environment=\"OSS_FLEXVOLUME_CONFIG=/e/50%%.json\"",
            "Slice=alicloud-oss.slice",
            "MemoryMax=512M",
            "Restart=on-failure",
            "DefaultDependencies=no",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let none = Node {
            config: None,
            ..NODE
        };
        assert!(!template(none, 252).contains("Environment"));
    }

    #[test]
    fn no_systemd_gets_a_directive_that_it_warns_of() {
        for (version, expected) in [
            (219, vec!["MemoryLimit=512M"]),
            (229, vec!["TasksMax=4096", "MemoryLimit=512M"]),
            (231, vec!["MemoryMax=512M", "TasksMax=4096"]),
            (
                240,
                vec!["MemoryMax=512M", "TasksMax=4096", DENY_LINE.trim()],
            ),
            (
                243,
                vec![
                    "MemoryMax=512M",
                    "TasksMax=4096",
                    "OOMPolicy=continue",
                    DENY_LINE.trim(),
                ],
            ),
        ] {
            let text = template(NODE, version);
            let limits: Vec<&str> = text
                .lines()
                .filter(|line| {
                    line.starts_with("MemoryLimit=")
                        || SINCE.iter().any(|(name, _)| line.starts_with(name))
                })
                .collect();
            assert_eq!(limits, expected, "{version}");
        }
    }

    #[test]
    fn the_packaged_template_is_the_one_for_the_usual_paths() {
        let usual = Node {
            program: PACKAGED_PROGRAM,
            volumes: PACKAGED_VOLUMES,
            config: None,
            memory_limit: 1 << 30,
            resolvers: &[],
        };
        assert_eq!(template(usual, 243), PACKAGED_TEMPLATE);
        for part in [
            PACKAGED_PROGRAM,
            PACKAGED_VOLUMES,
            SLICE_LINE,
            MEMORY_LINE,
            DENY_LINE,
        ] {
            assert_eq!(PACKAGED_TEMPLATE.matches(part).count(), 1, "{part}");
        }
    }

    #[test]
    fn name_servers_are_reached_whatever_their_address() {
        let local = resolvers(
            "# generated\nsearch a.example\nnameserver 169.254.20.10\nnameserver\t10.0.0.2\n\
             nameserver fe80::1%eth0\nnameserver 169.254.0.9\noptions ndots:5\n",
        );
        let text = template(
            Node {
                resolvers: &local,
                ..NODE
            },
            252,
        );
        let allowed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("IPAddressAllow="))
            .collect();
        assert_eq!(allowed, ["169.254.20.10", "fe80::1"]);
        let metadata = resolvers("nameserver 100.100.100.200\nnameserver x\nnameserver\n");
        assert_eq!(metadata.len(), 1);
        assert_eq!(resolvers(""), [] as [std::net::IpAddr; 0]);
    }
}
