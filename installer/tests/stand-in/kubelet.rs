//! A kubelet for tests, as far as its FlexVolume prober goes: it watches the plugin directory and
//! the drivers' directories with the events that kubelet's library asks for, takes no notice of
//! names that begin with a dot, and runs a driver's init for each other event
//! (`pkg/volume/flexvolume/probe.go`; kubelet runs it once for several events that come together,
//! this one for each, so that none is overlooked). It prints a line for each.
//!
//! `kubelet --watch DIRECTORY`, whatever else kubelet's arguments are.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::HashMap;
use std::io::{Result, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const EVENTS: AddWatchFlags = AddWatchFlags::IN_MOVED_TO
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_DELETE);

struct Prober {
    plugins: PathBuf,
    inotify: Inotify,
    watches: HashMap<WatchDescriptor, PathBuf>,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip_while(|arg| arg != "--watch").skip(1);
    let plugins = PathBuf::from(args.next().expect("--watch DIRECTORY"));
    let mut prober = Prober {
        inotify: Inotify::init(InitFlags::IN_CLOEXEC)?,
        watches: HashMap::new(),
        plugins: plugins.clone(),
    };
    prober.watch(&plugins)?;
    for entry in std::fs::read_dir(&plugins)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !is_dotted(&entry.path()) {
            prober.watch(&entry.path())?;
            prober.probe(&entry.path());
        }
    }
    say("watching");
    loop {
        for event in prober.inotify.read_events()? {
            let Some(name) = event.name else {
                continue;
            };
            let Some(directory) = prober.watches.get(&event.wd).cloned() else {
                continue;
            };
            prober.event(&directory.join(name), event.mask)?;
        }
    }
}

impl Prober {
    fn watch(&mut self, path: &Path) -> Result<()> {
        let watch = self.inotify.add_watch(path, EVENTS)?;
        self.watches.insert(watch, path.to_owned());
        Ok(())
    }

    fn event(&mut self, path: &Path, mask: AddWatchFlags) -> Result<()> {
        if is_dotted(path) {
            return Ok(());
        }
        let of_directory = path.parent() == Some(&self.plugins);
        let came = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        if of_directory && came && path.is_dir() {
            self.watch(path)?;
        }
        let driver = match of_directory {
            true => path,
            false => path.parent().expect("a driver's directory"),
        };
        let is_driver = of_directory || path == executable(driver);
        if mask.contains(AddWatchFlags::IN_DELETE) && is_driver {
            say(&format!("removed {}", name(driver)));
        } else {
            self.probe(driver);
        }
        Ok(())
    }

    fn probe(&self, driver: &Path) {
        let output = Command::new(executable(driver)).arg("init").output();
        let result = match output {
            Err(e) => format!("failed: {e}"),
            Ok(output) if !output.status.success() => format!("failed: {}", output.status),
            Ok(output) => match String::from_utf8_lossy(&output.stdout).contains("Success") {
                true => format!("ok {}", build(driver)),
                false => "failed: no success".to_owned(),
            },
        };
        say(&format!("init {} {result}", name(driver)));
    }
}

fn build(driver: &Path) -> String {
    let output = Command::new(executable(driver)).arg("--version").output();
    output.map_or_else(
        |e| e.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// `vendor~driver/driver`.
fn executable(driver: &Path) -> PathBuf {
    let name = name(driver);
    driver.join(name.split_once('~').map_or(name.as_str(), |(_, name)| name))
}

fn name(driver: &Path) -> String {
    let name = driver.file_name().expect("a driver's directory");
    name.to_string_lossy().into_owned()
}

fn is_dotted(path: &Path) -> bool {
    name(path).starts_with('.')
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // The test has ended.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
