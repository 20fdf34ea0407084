//! What the image and its Pod cost: prints a table, and checks the manifest's memory against it.
//!
//! `OSS_TEST_SECONDS=60 cargo test -p oss-installer --test image -- --ignored --nocapture measured`

use crate::dist::{FILES, Image};
use crate::host::{self, Host};
use crate::kubelet::Kubelet;
use crate::manifest::{PodSpec, bytes};
use crate::pod::Pod;
use crate::volume::CONFIG;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
/// How often a Pod is started.
const STARTS: usize = 9;

#[test]
#[ignore = "needs root, debootstrap and runc"]
fn measured() {
    if host::skip() {
        return;
    }
    let seconds = std::env::var("OSS_TEST_SECONDS").map_or(2, |text| text.parse().unwrap());
    let seconds = Duration::from_secs(seconds);
    let image = Image::release();
    let mut rows = vec![size(&image)];
    for (shape, host) in [("minimal", Host::bare()), ("full", Host::systemd())] {
        let spec = PodSpec::of_overlay(shape);
        host.write("/etc/alicloud-oss/config.json", CONFIG);
        let _kubelet = Kubelet::start(&host, PLUGINS);
        let mut starts: Vec<Duration> = (0..STARTS).map(|_| start(&host, &spec, &image)).collect();
        starts.sort();
        rows.push(format!(
            "{shape}: from the container's start to ready: median {:.2} s, slowest {:.2} s of {STARTS}",
            starts[STARTS / 2].as_secs_f64(),
            starts[STARTS - 1].as_secs_f64()
        ));
        rows.push(format!(
            "{shape}, waiting: {}",
            resident(&host, &spec, &image, seconds)
        ));
        let busy = spec.env("OSS_INSTALLER_PERIOD", "1");
        rows.push(format!(
            "{shape}, a check each second: {}",
            resident(&host, &busy, &image, seconds)
        ));
    }
    // Past the capture of the test harness: the numbers are there to be read.
    writeln!(std::io::stderr(), "{}", rows.join("\n")).unwrap();
}

/// The sizes of the image's layer.
fn size(image: &Image) -> String {
    let directory = tempfile::tempdir().unwrap();
    image.unpack(directory.path());
    let length = |script: &str| -> u64 {
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}");
        u64::try_from(output.stdout.len()).unwrap()
    };
    let files = FILES.join(" ");
    let megabytes = |bytes: u64| format!("{}.{:02} MB", bytes / 1_000_000, bytes / 10_000 % 100);
    format!(
        "image: {} ({}), {} with gzip",
        megabytes(length(&format!("tar --create {files}"))),
        FILES
            .map(|name| format!(
                "{name} {}",
                megabytes(directory.path().join(name).metadata().unwrap().len())
            ))
            .join(", "),
        megabytes(length(&format!("tar --create {files} | gzip")))
    )
}

/// The time to ready of a Pod on a host without a driver.
fn start(host: &Host, spec: &PodSpec, image: &Image) -> Duration {
    let driver = host.path(PLUGINS).join("alicloud~oss");
    if driver.exists() {
        std::fs::remove_dir_all(driver).unwrap();
        // The record of kubelet's init of the last one.
        std::fs::remove_file(host.path("/run/alicloud-oss/init.json")).unwrap();
    }
    let pod = Pod::start(host, spec, image);
    pod.wait_ready();
    let time = pod.started.elapsed();
    // Ready by what its init container has done, it may not run yet, and then a signal ends runc.
    pod.read_until("note: ");
    let (status, log) = pod.terminate();
    assert_eq!(status, Some(0), "{log:#?}");
    time
}

/// What a ready Pod uses over `time`.
fn resident(host: &Host, spec: &PodSpec, image: &Image, time: Duration) -> String {
    let pod = Pod::start(host, spec, image);
    pod.wait_ready();
    let (before, asked) = (pod.cpu_time(), std::time::Instant::now());
    std::thread::sleep(time);
    let used = (pod.cpu_time() - before).as_secs_f64() / asked.elapsed().as_secs_f64();
    let status = pod.proc("status");
    let kib = |name: &str| -> u64 {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (most, now) = (kib("VmHWM:"), kib("VmRSS:"));
    pod.assert_within_memory(spec);
    let resources = &spec.container()["resources"];
    let request = bytes(resources["requests"]["memory"].as_str().unwrap());
    assert!(
        most * 1024 <= request,
        "{most} KiB are more than is requested"
    );
    let row = format!(
        "resident {:.1} MiB, at most {:.1} MiB; the Pod with all its processes at most {:.1} of {} MiB; {:.3} % of a core",
        now as f64 / 1024.0,
        most as f64 / 1024.0,
        pod.memory_peak() as f64 / f64::from(1 << 20),
        bytes(resources["limits"]["memory"].as_str().unwrap()) >> 20,
        used * 100.0
    );
    let (status, log) = pod.terminate();
    assert_eq!(status, Some(0), "{log:#?}");
    row
}
