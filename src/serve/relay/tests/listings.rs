//! Listings across deaths.

use crate::serve::relay::tests::world::World;
use crate::serve::relay::wire::ROOT;
use std::collections::BTreeSet;

fn many() -> (Vec<String>, World) {
    let names: Vec<String> = (0..400).map(|n| format!("name-{n:03}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    (names.clone(), World::new(&files))
}

#[test]
fn each_name_comes_once_however_often_the_daemon_dies() {
    for page in [100, 1000, 4096] {
        let (names, mut world) = many();
        let handle = world.opendir(ROOT).unwrap();
        let (mut seen, mut position) = (BTreeSet::new(), 0);
        for round in 0.. {
            world.daemon.as_mut().unwrap().page = page;
            let (some, last) = world.list(ROOT, handle, position).unwrap();
            if some.is_empty() {
                break;
            }
            for name in some {
                assert!(seen.insert(name.clone()), "{name} came twice");
            }
            position = last;
            if round % 3 == 1 {
                world.kill();
                world.start();
                world.run();
            }
        }
        assert!(seen.iter().eq(&names));
    }
}

#[test]
fn a_rewound_listing_begins_anew_and_a_seek_goes_back() {
    let (_, mut world) = many();
    let handle = world.opendir(ROOT).unwrap();
    let (first, middle) = world.list(ROOT, handle, 0).unwrap();
    let (second, _) = world.list(ROOT, handle, middle).unwrap();
    assert_eq!(world.list(ROOT, handle, middle).unwrap().0, second);
    assert_eq!(world.list(ROOT, handle, 0).unwrap().0, first);
    assert_eq!(world.list(ROOT, handle, 10_000), Err(5));
}

#[test]
fn a_listing_of_a_process_before_cannot_go_on_but_begins_anew() {
    let (_, mut world) = many();
    let handle = world.opendir(ROOT).unwrap();
    let (_, position) = world.list(ROOT, handle, 0).unwrap();
    world.kill_relay();
    world.start();
    world.run();
    assert_eq!(world.list(ROOT, handle, position), Err(5));
    assert!(!world.list(ROOT, handle, 0).unwrap().0.is_empty());
}
