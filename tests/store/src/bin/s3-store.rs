//! A store for demonstrations and for measurements from other processes.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use store::{Fault, Store};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
usage: s3-store [--listen ADDR:PORT] --bucket NAME... --key ID:SECRET... [--log]
                [--objects NAME:COUNT]... [--delay MILLISECONDS]

Serves buckets in memory until SIGTERM or SIGINT. Prints its URL when it is ready, and with
--log a line per finished request on stderr. Buckets are empty but for those of --objects, which
have as many objects: object-000000, object-000001 and so on. With --delay every request waits that
long before it is answered.
";

struct Options {
    listen: SocketAddr,
    buckets: Vec<String>,
    keys: Vec<(String, String)>,
    log: bool,
    objects: Vec<(String, usize)>,
    delay: Option<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        return ended(write_to(io::stdout(), USAGE));
    }
    match options(arguments) {
        Ok(options) => ended(serve(&options)),
        Err(error) => {
            // Nothing is left to report a failure of this to.
            let _ = write_to(io::stderr(), &format!("s3-store: {error}\n\n{USAGE}"));
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As above.
            let _ = write_to(io::stderr(), &format!("s3-store: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn write_to(mut stream: impl Write, text: &str) -> Result<(), Box<dyn Error>> {
    stream.write_all(text.as_bytes())?;
    Ok(stream.flush()?)
}

fn options(arguments: Vec<String>) -> Result<Options, String> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        buckets: Vec::new(),
        keys: Vec::new(),
        log: false,
        objects: Vec::new(),
        delay: None,
    };
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--listen" => {
                let address = value()?;
                options.listen = address
                    .parse()
                    .map_err(|_| format!("not an address: {address}"))?;
            }
            "--bucket" => options.buckets.push(value()?),
            "--key" => {
                let key = value()?;
                let (id, secret) = key.split_once(':').ok_or("--key needs ID:SECRET")?;
                options.keys.push((id.to_owned(), secret.to_owned()));
            }
            "--log" => options.log = true,
            "--objects" => {
                let objects = value()?;
                let parsed = objects.split_once(':').and_then(|(bucket, count)| {
                    Some((bucket.to_owned(), count.parse::<usize>().ok()?))
                });
                let parsed = parsed.filter(|(bucket, _)| options.buckets.contains(bucket));
                options.objects.push(
                    parsed.ok_or("--objects needs NAME:COUNT, after --bucket with that NAME")?,
                );
            }
            "--delay" => {
                let time = value()?;
                let time = time
                    .parse()
                    .map_err(|_| format!("not a number of milliseconds: {time}"))?;
                options.delay = Some(Duration::from_millis(time));
            }
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    if options.buckets.is_empty() || options.keys.is_empty() {
        return Err("at least one bucket and one key are needed".to_owned());
    }
    Ok(options)
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        // Caught before the URL is printed: whoever reads it may send a signal at once.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let store = Store::start_on(options.listen)?;
        for bucket in &options.buckets {
            store.create_bucket(bucket);
        }
        for (id, secret) in &options.keys {
            store.add_key(id, secret);
        }
        for (bucket, count) in &options.objects {
            for number in 0..*count {
                store.put(bucket, &format!("object-{number:06}"), "content");
            }
        }
        if let Some(delay) = options.delay {
            store.inject_everywhere(Fault::Delay(delay));
        }
        if options.log {
            store.watch(|request| {
                // A log nobody reads any more is no reason to stop serving.
                let _ = writeln!(io::stderr(), "{request}");
            });
        }
        write_to(io::stdout(), &format!("{}\n", store.url()))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
