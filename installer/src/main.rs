//! The node installer of the FlexVolume driver `alicloud/oss`: finds kubelet's plugin directory,
//! puts the driver there so that kubelet never meets a partial one, keeps it so, tells whether
//! kubelet has loaded it, and removes it when no volume is left that only it could unmount.

mod args;
mod calls;
mod checks;
mod directory;
mod driver;
mod find;
mod finding;
mod heal;
mod host;
mod inspect;
mod install;
mod kubelet;
mod logging;
mod mounts;
mod node;
mod node_config;
mod packages;
mod pass;
mod ready;
mod run;
mod state;
mod uninstall;
mod updatedb;
mod watch;

use args::Command;
use std::env::args_os;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = args_os().collect();
    if let Some((error, status)) = host::stage::run(&words) {
        say(&mut std::io::stderr(), &format!("{error}\n"));
        return ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX));
    }
    let (command, settings) = match args::parse(words) {
        Ok(parsed) => parsed,
        // A demand for help is no error.
        Err(shown) => {
            let _ = shown.print();
            return ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2));
        }
    };
    logging::start(settings.log_format);
    let done = match command {
        Command::Run { once: false } => run::run(&settings).map(|()| true),
        Command::Run { once: true } => {
            run::once(&settings);
            Ok(true)
        }
        Command::Check => Ok(pass::check(&settings)),
        Command::Find => find::find(&settings, None).map(|found| {
            let text = format!("{}\t{}\n", found.path.display(), found.how);
            say(&mut std::io::stdout(), &text);
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

/// Writes for the person or the program that started this; whoever has gone is not told.
fn say(to: &mut impl std::io::Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
