//! The minimal shape: a plugin directory and a state directory, and nothing else of the host.

use crate::dist::Image;
use crate::host::{self, Host};
use crate::kubelet::Kubelet;
use crate::manifest::PodSpec;
use crate::pod::Pod;

#[test]
#[ignore = "needs root, debootstrap and runc"]
fn the_minimal_pod_installs_becomes_ready_and_is_upgraded() {
    if host::skip() {
        return;
    }
    let host = Host::bare();
    let spec = PodSpec::of_overlay("minimal");
    let plugins = spec.variable("OSS_INSTALLER_PLUGIN_DIR").to_owned();
    let driver = host.path(&plugins).join("alicloud~oss/oss");
    let image = Image::release();

    let pod = Pod::start(&host, &spec, &image);
    pod.read_until("installed ");
    assert_eq!(std::fs::read(&driver).unwrap(), image.driver());
    // The container that stays finds nothing to do.
    let log = pod.read_until("the host is not reached").join("\n");
    assert!(!log.contains("installed "), "{log}");
    let (ready, said) = pod.probe();
    assert!(!ready);
    assert!(
        said.contains("kubelet has not loaded the driver yet"),
        "{said}"
    );
    // kubelet comes, looks around and has the driver.
    let mut kubelet = Kubelet::start(&host, &plugins);
    let seen = kubelet.process.read_until("watching");
    assert_eq!(
        seen,
        [
            format!("init alicloud~oss ok {}", image.build()),
            "watching".to_owned()
        ]
    );
    let (ready, said) = pod.probe();
    assert!(ready, "{said}");
    assert_eq!(kubelet.seen(), [] as [&str; 0]);
    pod.assert_within_memory(&spec);
    let status = pod.proc("status");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    let (status, log) = pod.terminate();
    assert_eq!(status, Some(0), "{log:#?}");
    assert!(
        log.last().unwrap().contains("stopped; the driver stays"),
        "{log:#?}"
    );
    assert_eq!(std::fs::read(&driver).unwrap(), image.driver());

    // A new image: kubelet runs init of the new driver, once.
    let newer = image.rebuilt();
    assert_ne!(image.build(), newer.build());
    let pod = Pod::start(&host, &spec, &newer);
    pod.read_until("installed ");
    pod.wait_ready();
    assert_eq!(
        kubelet.seen(),
        [format!("init alicloud~oss ok {}", newer.build())]
    );
    pod.assert_within_memory(&spec);
    assert_eq!(pod.terminate().0, Some(0));
    assert_eq!(std::fs::read(&driver).unwrap(), newer.driver());
}
