//! The node installer of the FlexVolume driver `alicloud/oss`: finds kubelet's plugin directory,
//! installs the driver there so that kubelet never sees a partial one, repairs it, reports whether
//! kubelet has loaded it, and removes it when no volume is left that only it could unmount.

mod args;
mod calls;
mod checks;
mod checksum;
mod directory;
mod driver;
mod find;
mod finding;
mod heal;
mod heartbeat;
mod host;
mod inspect;
mod install;
mod kubelet;
mod logging;
mod mounts;
mod node;
mod node_config;
mod ossfs_tree;
mod packages;
mod pass;
mod ready;
mod repairs;
mod run;
mod state;
mod supervision;
mod uninstall;
mod updatedb;
mod watch;

use args::Command;
use std::env::args_os;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = args_os().collect();
    if let Some((error, status)) = host::stage::run(&args) {
        print(&mut std::io::stderr(), &format!("{error}\n"));
        return ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX));
    }
    let (command, settings) = match args::parse(args) {
        Ok(parsed) => parsed,
        // The text of --help, too, which has status 0.
        Err(error) => {
            // Nobody reads it any more: the status says the same.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logging::start(settings.log_format, settings.host_root.clone());
    let done = match command {
        Command::Run { once: false } => run::run(&settings).map(|()| true),
        Command::Run { once: true } => {
            run::once(&settings);
            Ok(true)
        }
        Command::InstallOssfs => {
            packages::once(&settings);
            Ok(true)
        }
        Command::Wait => watch::wait_for_signal().map(|()| true),
        Command::CopyOssfs { directory, program } => {
            ossfs_tree::copy(&directory, &program).map(|tree| {
                print(&mut std::io::stdout(), &format!("{}\n", tree.display()));
                true
            })
        }
        Command::Check => {
            let (text, ready) = pass::check(&settings);
            print(&mut std::io::stdout(), &text);
            Ok(ready)
        }
        Command::Find => find::find(&settings, None).map(|found| {
            let text = format!("{}\t{}\n", found.path.display(), found.how);
            print(&mut std::io::stdout(), &text);
            true
        }),
        Command::Uninstall { drain } => uninstall::uninstall(&settings, drain).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `text` for the person or the program that started this.
fn print(to: &mut impl std::io::Write, text: &str) {
    // A reader that has closed the pipe does not want it.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
