//! The table of nodes.

use super::*;

fn known(nodes: &mut Nodes, parent: u64, name: &str, daemon: u64) -> u64 {
    let id = nodes.add(parent, name.as_bytes(), DIRECTORY).unwrap();
    nodes.told(id, daemon);
    nodes.get_mut(id).unwrap().lookups += 1;
    id
}

#[test]
fn a_node_is_at_most_eighty_bytes() {
    assert!(size_of::<Node>() <= 80, "{}", size_of::<Node>());
}

#[test]
fn finds_ten_thousand_by_name_and_by_number_and_forgets_them_all() {
    let mut nodes = Nodes::new();
    let ids: Vec<u64> = (0..10_000)
        .map(|n| known(&mut nodes, ROOT, &format!("n{n}"), n + 2))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(nodes.child(ROOT, format!("n{n}").as_bytes()), Some(*id));
        assert_eq!(nodes.of_daemon(n as u64 + 2), Some(*id));
    }
    let mut settled = Settled::default();
    for id in &ids {
        nodes.forget(*id, 1, &mut settled);
    }
    assert_eq!(settled.forgets.len(), 10_000);
    assert_eq!(nodes.len(), 1);
    let again = nodes.add(ROOT, b"n1", DIRECTORY).unwrap();
    assert!(!ids.contains(&again));
    assert!(nodes.get(ids[1]).is_none());
}

#[test]
fn a_parent_stays_while_a_child_is_held() {
    let mut nodes = Nodes::new();
    let above = known(&mut nodes, ROOT, "above", 2);
    let below = known(&mut nodes, above, "below", 3);
    let mut settled = Settled::default();
    nodes.forget(above, 1, &mut settled);
    assert_eq!(
        (settled.forgets.as_slice(), settled.gone.len()),
        (&[(2, 1)][..], 0)
    );
    assert_eq!(nodes.path(below), Path::Known(3));
    nodes.daemon_changed();
    assert_eq!(nodes.path(below), Path::LookUp(above));
    nodes.told(above, 9);
    assert_eq!(nodes.path(below), Path::LookUp(below));
    nodes.forget(below, 1, &mut settled);
    assert_eq!(settled.gone, [below, above]);
    assert_eq!(settled.forgets, [(2, 1), (9, 1)]);
    assert_eq!(nodes.len(), 1);
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let mut nodes = Nodes::new();
    let above = known(&mut nodes, ROOT, "above", 2);
    let below = known(&mut nodes, above, "below", 3);
    assert!(!nodes.moves(above, below, b"x"));
    assert!(!nodes.moves(above, above, b"x"));
    assert!(nodes.moves(below, ROOT, b"x"));
    assert_eq!(nodes.child(ROOT, b"x"), Some(below));
    assert_eq!(nodes.child(above, b"below"), None);
    assert!(nodes.moves(above, below, b"y"));
}

#[test]
fn a_deleted_node_is_lost_after_a_death_and_its_name_is_free() {
    let mut nodes = Nodes::new();
    let old = known(&mut nodes, ROOT, "name", 2);
    nodes.delete(old);
    nodes.delete(old);
    assert_eq!(nodes.path(old), Path::Known(2));
    let new = known(&mut nodes, ROOT, "name", 3);
    assert_eq!(nodes.child(ROOT, b"name"), Some(new));
    nodes.daemon_changed();
    assert_eq!(nodes.path(old), Path::Lost);
    assert_eq!(nodes.path(new), Path::LookUp(new));
}

#[test]
fn restores_children_told_before_their_parents() {
    let id = |n: u64| n << PLACE_BITS | (n + 3);
    let nodes = Nodes::restored([
        Nodes::record(id(5), id(9), b"below", 8, 1),
        Nodes::record(id(9), ROOT, b"above", DIRECTORY, 2),
        Nodes::record(id(2), id(77), b"orphan", 8, 1),
    ]);
    assert_eq!(nodes.len(), 4);
    assert_eq!(nodes.path(id(5)), Path::LookUp(id(9)));
    assert_eq!(nodes.path(id(2)), Path::Lost);
    assert_eq!(nodes.child(id(9), b"below"), Some(id(5)));
}
