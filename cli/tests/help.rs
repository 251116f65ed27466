//! The help texts are part of the product: a change in them is a change that someone has looked at.
//!
//! `SNAP_WRITE_HELP=1 cargo test -p snap --test help` writes them anew.

use std::path::Path;
use std::process::Command;

const PAGES: [(&str, &[&str]); 16] = [
    ("snap", &[]),
    ("mount", &["mount"]),
    ("umount", &["umount"]),
    ("pull", &["pull"]),
    ("fetch", &["fetch"]),
    ("login", &["login"]),
    ("logout", &["logout"]),
    ("serve", &["serve"]),
    ("status", &["status"]),
    ("inspect", &["inspect"]),
    ("cache", &["cache"]),
    ("cache-ls", &["cache", "ls"]),
    ("cache-rm", &["cache", "rm"]),
    ("cache-prune", &["cache", "prune"]),
    ("index", &["index"]),
    ("index-dump", &["index", "dump"]),
];

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_snap")).args(command).arg("--help").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success() && output.stderr.is_empty());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    for (name, command) in PAGES {
        let path = folder.join(format!("{name}.txt"));
        let shown = help(command);
        if std::env::var_os("SNAP_WRITE_HELP").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown, kept, "{command:?}: where the new text is wanted, run this test with SNAP_WRITE_HELP=1");
    }
}

#[test]
fn without_a_command_the_help_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_snap")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: snap"));
}

#[test]
fn the_version_is_the_crates() {
    let output = Command::new(env!("CARGO_BIN_EXE_snap")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("snap ", env!("CARGO_PKG_VERSION"), "\n"));
}
