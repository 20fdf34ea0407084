//! What a volume's process needs to know: the content of `serve.json` in the volume's directory,
//! written by the mount call before the process starts, and read again when that is asked to (`reload`).

use crate::config::LogLevel;
use crate::format::{self, BUILD};
use anyhow::{Context as _, Result, bail};
use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name in the volume's directory.
pub(crate) const FILE: &str = "serve.json";
/// The version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
/// The largest plan that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// The largest read where a relay passes it on in one packet, in bytes.
const MAX_READ: u32 = 128 * 1024;
/// The longest `source` in the mount table, in bytes.
const MAX_SOURCE_BYTES: usize = 1024;

/// How one volume is served.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Version of this format. A newer one is refused: its writer expects what this build lacks.
    #[serde(default = "first_version")]
    pub version: u32,
    /// The build that wrote it.
    #[serde(default)]
    pub build: String,
    /// The daemon's executable file, an absolute path.
    pub program: PathBuf,
    /// What follows the program's name. It runs in the foreground (`-f`), and its mount point is an
    /// empty directory that is not the staging directory: the daemon looks at it before it serves.
    pub arguments: Vec<String>,
    /// The first field of the mount, for people who read the mount table.
    pub source: String,
    /// The part of the file system type after `fuse.`.
    pub subtype: String,
    /// Mount options that belong to the kernel.
    pub mount: MountOptions,
    /// Whether messages pass through this process. Without it the daemon gets the FUSE descriptor
    /// itself, and its end is the end of the mount.
    pub relay: bool,
    /// What the daemon may see and do.
    pub sandbox: SandboxPlan,
    /// Where the daemon keeps its temporary files: a directory on a disk, owned by the sandbox's user.
    pub temporary: PathBuf,
    /// Directories of the daemon's that are emptied before each start of it.
    #[serde(default)]
    pub emptied: Vec<PathBuf>,
    /// The most memory that the volume may use, in bytes. The unit bounds it under systemd.
    pub memory_limit: u64,
    /// A daemon that leaves a statfs unanswered for so long, in seconds, is killed and replaced.
    pub hung_after_seconds: u64,
    /// While no daemon answers a statfs, requests older than this, in seconds, fail with EIO.
    #[serde(default)]
    pub request_timeout_seconds: Option<u64>,
    /// Where the process logs; stderr alone without it.
    #[serde(default)]
    pub log: Option<LogPlan>,
}

/// Options of mount(2). nosuid, nodev and allow_other always hold.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MountOptions {
    /// MS_RDONLY.
    pub read_only: bool,
    /// Have the kernel check permissions by mode, owner and group.
    pub default_permissions: bool,
    /// The largest read, in bytes; the kernel's own limit without it.
    pub max_read: Option<u32>,
    /// MS_NOEXEC.
    pub noexec: bool,
    /// MS_NOATIME.
    pub noatime: bool,
    /// MS_NODIRATIME.
    pub nodiratime: bool,
    /// MS_SYNCHRONOUS.
    pub sync: bool,
    /// MS_DIRSYNC.
    pub dirsync: bool,
    /// SELinux labels by option (`context`, …; mount(8)).
    pub labels: BTreeMap<String, String>,
}

/// Settings of the sandbox for one volume.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SandboxPlan {
    /// False finds out whether the sandbox is the reason of a fault.
    pub on: bool,
    /// The user on the node that the daemon runs as.
    pub uid: u32,
    /// The file with the volume's keys.
    pub key_file: Option<PathBuf>,
    /// What its environment has besides what it always has.
    pub environment: BTreeMap<String, String>,
    /// Paths of the node that the volume's options may reach; true: also for writing.
    pub reachable: Vec<(PathBuf, bool)>,
}

/// A log file as the node configuration names it.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogPlan {
    /// The file that lines are appended to.
    pub file: PathBuf,
    /// How much goes there.
    pub level: LogLevel,
}

/// The version of a plan without that field.
fn first_version() -> u32 {
    1
}

impl Plan {
    /// A plan with the usual values: relay and sandbox on, 30 s until a daemon counts as hung.
    pub fn new(program: PathBuf, arguments: Vec<String>, source: String) -> Self {
        Self {
            version: VERSION,
            build: BUILD.to_owned(),
            program,
            arguments,
            source,
            subtype: "ossfs".to_owned(),
            mount: MountOptions::default(),
            relay: true,
            sandbox: SandboxPlan {
                on: true,
                ..SandboxPlan::default()
            },
            temporary: "/var/tmp".into(),
            emptied: Vec::new(),
            memory_limit: 1 << 30,
            hung_after_seconds: 30,
            request_timeout_seconds: None,
            log: None,
        }
    }

    /// The text of `serve.json`.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn render(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).context("write the plan as JSON")?;
        text.push('\n');
        Ok(text)
    }

    /// The plan in `text`.
    ///
    /// # Errors
    /// What is not such a plan, or asks for what cannot be.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        format::check(text, VERSION)?;
        let plan: Self = serde_json::from_str(text).context("parse the plan")?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan in the directory `volume`.
    pub(crate) fn read(volume: &Path) -> Result<Self> {
        let path = volume.join(FILE);
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    fn check(&self) -> Result<()> {
        if !self.program.is_absolute() {
            bail!("program {:?} is not an absolute path", self.program);
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.subtype.is_empty() || self.subtype.len() > 32 || !self.subtype.bytes().all(is_word)
        {
            bail!(
                "subtype {:?} is not a name: use up to 32 of a-z, 0-9, \"-\", \"_\" and \".\"",
                self.subtype
            );
        }
        if self.source.is_empty()
            || self.source.len() > MAX_SOURCE_BYTES
            || self.source.chars().any(char::is_control)
        {
            bail!(
                "source {:?} is not a name of a mount: use 1 to {MAX_SOURCE_BYTES} bytes without control characters",
                self.source
            );
        }
        if self.hung_after_seconds == 0 || self.request_timeout_seconds == Some(0) {
            bail!("a time of 0 s is not possible: use 1 or more");
        }
        Ok(())
    }

    /// The data for mount(2) where requests are read from the descriptor `fuse`.
    pub(crate) fn mount_data(&self, fuse: i32) -> String {
        let largest = match self.relay {
            true => MAX_READ,
            // The kernel's own limits hold.
            false => u32::MAX,
        };
        self.mount.data(fuse, largest)
    }

    pub(crate) fn hung_after(&self) -> Duration {
        Duration::from_secs(self.hung_after_seconds)
    }

    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout_seconds.map(Duration::from_secs)
    }
}

impl MountOptions {
    /// The flags for mount(2).
    pub(crate) fn flags(&self) -> MsFlags {
        let Self {
            read_only,
            default_permissions: _,
            max_read: _,
            noexec,
            noatime,
            nodiratime,
            sync,
            dirsync,
            labels: _,
        } = self;
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for (wanted, flag) in [
            (read_only, MsFlags::MS_RDONLY),
            (noexec, MsFlags::MS_NOEXEC),
            (noatime, MsFlags::MS_NOATIME),
            (nodiratime, MsFlags::MS_NODIRATIME),
            (sync, MsFlags::MS_SYNCHRONOUS),
            (dirsync, MsFlags::MS_DIRSYNC),
        ] {
            flags.set(flag, *wanted);
        }
        flags
    }

    /// The data for mount(2) of a file system whose requests are read from the descriptor `fuse`
    /// (Documentation/filesystems/fuse.rst, "Mount options"). Reads are no larger than `largest`
    /// bytes.
    fn data(&self, fuse: i32, largest: u32) -> String {
        let mut data = format!("fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other");
        if self.default_permissions {
            data.push_str(",default_permissions");
        }
        let max_read = self.max_read.unwrap_or(largest).min(largest);
        data.push_str(&format!(",max_read={max_read}"));
        for (option, label) in &self.labels {
            // In quotes: a level may have commas (mount(8), "context").
            data.push_str(&format!(",{option}=\"{label}\""));
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::{MountOptions, Plan};
    use nix::mount::MsFlags;

    fn plan() -> Plan {
        Plan::new(
            "/usr/bin/ossfs".into(),
            vec!["docker".to_owned(), "-f".to_owned()],
            "ossfs".to_owned(),
        )
    }

    #[test]
    fn a_plan_survives_as_text() {
        let mut plan = plan();
        plan.mount.read_only = true;
        plan.request_timeout_seconds = Some(5);
        plan.sandbox.reachable = vec![("/etc/ssl".into(), false)];
        let proxy = (
            "https_proxy".to_owned(),
            "http://proxy.example:3128".to_owned(),
        );
        plan.sandbox.environment.extend([proxy]);
        assert_eq!(Plan::parse(&plan.render().unwrap()).unwrap(), plan);
    }

    #[test]
    fn refuses_what_cannot_be_served() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            format!("{:#}", Plan::parse(&plan.render().unwrap()).unwrap_err())
        };
        let newer = refused(|plan| (plan.version, plan.build) = (2, "9.0".to_owned()));
        assert!(newer.starts_with("build \"9.0\" of the driver wrote it in format 2"));
        assert_eq!(
            refused(|plan| plan.program = "ossfs".into()),
            "program \"ossfs\" is not an absolute path"
        );
        assert_eq!(
            refused(|plan| plan.subtype = "a b".to_owned()),
            "subtype \"a b\" is not a name: use up to 32 of a-z, 0-9, \"-\", \"_\" and \".\""
        );
        assert_eq!(
            refused(|plan| plan.hung_after_seconds = 0),
            "a time of 0 s is not possible: use 1 or more"
        );
        assert!(refused(|plan| plan.source = "a\nb".to_owned()).starts_with("source \"a\\nb\""));
        assert!(Plan::parse("{}").is_err());
    }

    #[test]
    fn a_plan_without_version_is_of_the_first() {
        let mut json: serde_json::Value = serde_json::from_str(&plan().render().unwrap()).unwrap();
        for field in ["version", "build"] {
            json.as_object_mut().unwrap().remove(field).unwrap();
        }
        let read = Plan::parse(&json.to_string()).unwrap();
        assert_eq!((read.version, read.build.as_str()), (1, ""));
    }

    #[test]
    fn mounts_are_always_nosuid_and_nodev() {
        let none = MountOptions::default();
        assert_eq!(none.flags(), MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(
            none.data(7, 131_072),
            "fd=7,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=131072"
        );
        let some = MountOptions {
            read_only: true,
            noexec: true,
            default_permissions: true,
            max_read: Some(65536),
            ..none
        };
        assert_eq!(
            some.flags(),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC
        );
        assert_eq!(
            some.data(3, 131_072),
            "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=65536"
        );
    }
}
