//! A FUSE connection that goes from process to process, on the real kernel. Needs root and /dev/fuse.
//!
//! The test program starts itself again for each daemon, keeper and reader it needs; the arguments then say which.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod actor;
mod keeping;
mod scene;
mod store;
mod takeover;
mod tiny;

const TESTS: &[(&str, fn())] = &[
    ("killed_daemons_lose_no_read", takeover::killed_daemons_lose_no_read),
    ("a_connection_that_was_unmounted_is_gone", takeover::a_connection_that_was_unmounted_is_gone),
    ("a_lazily_unmounted_connection_is_adopted_and_told_apart", takeover::a_lazily_unmounted_connection_is_adopted_and_told_apart),
    ("a_daemon_that_agrees_to_less_is_refused", takeover::a_daemon_that_agrees_to_less_is_refused),
    ("a_daemon_that_could_do_more_gets_what_was_agreed", takeover::a_daemon_that_could_do_more_gets_what_was_agreed),
    ("what_cannot_be_adopted_says_why", takeover::what_cannot_be_adopted_says_why),
    ("a_dead_mount_is_cleared_away", takeover::a_dead_mount_is_cleared_away),
    ("a_mount_that_nobody_serves_is_cleared_away", takeover::a_mount_that_nobody_serves_is_cleared_away),
    ("a_session_that_fails_leaves_no_mount", takeover::a_session_that_fails_leaves_no_mount),
    ("connections_leave_no_descriptor", takeover::connections_leave_no_descriptor),
    ("large_reads_reach_the_daemon", takeover::large_reads_reach_the_daemon),
    ("a_keeper_ends_with_its_connection", keeping::a_keeper_ends_with_its_connection),
    ("a_keeper_survives_what_ends_daemons", keeping::a_keeper_survives_what_ends_daemons),
    ("a_keeper_takes_the_place_of_a_dead_one", keeping::a_keeper_takes_the_place_of_a_dead_one),
    ("a_keeper_gives_nothing_to_others", keeping::a_keeper_gives_nothing_to_others),
    ("a_keeper_holds_the_device_and_nothing_else", keeping::a_keeper_holds_the_device_and_nothing_else),
    ("a_keeper_without_a_device_does_not_start", keeping::a_keeper_without_a_device_does_not_start),
    ("a_mute_keeper_is_given_up", keeping::a_mute_keeper_is_given_up),
    ("the_service_manager_keeps_the_connection", store::the_service_manager_keeps_the_connection),
    ("nothing_is_taken_from_a_manager_that_kept_nothing", store::nothing_is_taken_from_a_manager_that_kept_nothing),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, dir, rest @ ..] = arguments.as_slice()
        && first == actor::MARK
    {
        return actor::run(role, dir.as_ref(), rest);
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
