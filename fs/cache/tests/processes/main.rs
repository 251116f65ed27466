//! Several processes on one cache, and processes killed at every system call.
//!
//! The test program starts itself again for each process it needs; the first argument then says which.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod actor;
mod kill_points;
mod sharing;

const TESTS: &[(&str, fn())] = &[
    ("a_layer_is_built_by_one_process_and_used_by_all", sharing::a_layer_is_built_by_one_process_and_used_by_all),
    ("readers_survive_an_evictor", sharing::readers_survive_an_evictor),
    ("a_killed_builder_is_followed_by_the_next", sharing::a_killed_builder_is_followed_by_the_next),
    ("a_waiting_builder_finds_the_layer_built", sharing::a_waiting_builder_finds_the_layer_built),
    ("a_lease_in_another_process_keeps_the_layer", sharing::a_lease_in_another_process_keeps_the_layer),
    ("new_caches_are_claimed_by_many_at_once", sharing::new_caches_are_claimed_by_many_at_once),
    ("a_fetch_may_be_killed_at_every_system_call", kill_points::a_fetch_may_be_killed_at_every_system_call),
    ("an_indexed_fetch_may_be_killed_at_every_system_call", kill_points::an_indexed_fetch_may_be_killed_at_every_system_call),
    ("a_return_after_a_reboot_may_be_killed_at_every_system_call", kill_points::a_return_after_a_reboot_may_be_killed_at_every_system_call),
    (
        "a_restoration_of_cut_data_may_be_killed_at_every_system_call",
        kill_points::a_restoration_of_cut_data_may_be_killed_at_every_system_call,
    ),
    ("a_repair_may_be_killed_at_every_system_call", kill_points::a_repair_may_be_killed_at_every_system_call),
    ("an_eviction_may_be_killed_at_every_system_call", kill_points::an_eviction_may_be_killed_at_every_system_call),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, dir] = arguments.as_slice()
        && first == actor::MARK
    {
        return actor::run(role, dir.as_ref());
    }
    let wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter))
    };
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        println!("test {name} ...");
        test();
        println!("test {name} ... ok");
    }
}
