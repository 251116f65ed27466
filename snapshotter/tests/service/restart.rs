//! What is on disk after the process is gone, and what it may not be.

use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};
use snap_snapshotter::{Error, Records};
use tonic::Code;

use crate::harness::{Labels, Rig, code, labels};

const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Files `count` views that have no parent in one transaction.
pub(crate) async fn with_many_records(rig: Rig, count: u32) -> Rig {
    let Rig { layers, snapshotter, client, dir } = rig;
    drop((snapshotter, client));
    let database = wait_for_database(&dir.path().join("records/records.redb")).await;
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(SNAPSHOTS).unwrap();
        let label = "v".repeat(2000);
        for id in 1..=count {
            let time = r#"{"secs_since_epoch":1,"nanos_since_epoch":0}"#;
            let record = format!(
                r#"{{"id":{id},"kind":"view","parent":"","labels":{{"k":"{label}"}},"created":{time},"updated":{time},"usage":{{"size_bytes":0,"inodes":0}},"remote":null}}"#
            );
            table.insert(format!("snapshot-{id:05}").as_str(), record.as_bytes()).unwrap();
        }
    }
    write.commit().unwrap();
    drop(database);
    Rig::start_in(dir, layers).await
}

async fn wait_for_database(path: &Path) -> Database {
    for _ in 0..100_000 {
        match Database::open(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the records were never let go of");
}

#[tokio::test]
async fn everything_is_as_before_after_a_restart() {
    let mut rig = Rig::start().await;
    rig.committed("base", "").await;
    rig.served(1, "base").await;
    rig.prepare("key", &crate::harness::digest(1).to_string(), labels(&[("a", "b")])).await.unwrap();
    rig.view("view", "base").await.unwrap();
    let (before, mounts) = (rig.list(&[]).await.unwrap(), rig.mounts("key").await.unwrap());
    let mut rig = rig.restart().await;
    assert_eq!(rig.list(&[]).await.unwrap(), before);
    assert_eq!(rig.mounts("key").await.unwrap(), mounts);
    assert_eq!(code(rig.remove("base").await), Code::FailedPrecondition);
}

#[tokio::test]
async fn directories_that_a_crash_left_are_gone_after_the_start_and_no_id_comes_twice() {
    let mut rig = Rig::start().await;
    rig.prepare("kept", "", Labels::new()).await.unwrap();
    rig.prepare("removed", "", Labels::new()).await.unwrap();
    rig.remove("removed").await.unwrap();
    let folder = rig.dir.path().join("records/s");
    // As after a crash between making the directory of the next snapshot and its record.
    fs::create_dir_all(folder.join("3/fs/half")).unwrap();
    let mut rig = rig.restart().await;
    assert_eq!(rig.directories(), ["1"]);
    rig.prepare("next", "", Labels::new()).await.unwrap();
    assert_eq!(rig.directories(), ["1", "3"]);
    assert!(!folder.join("3/fs/half").exists());
}

#[test]
fn a_damaged_database_is_told_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(Records::open(dir.path()).unwrap());
    let path = dir.path().join("records.redb");
    let good = fs::read(&path).unwrap();
    for damaged in [b"not a database at all".repeat(1000), good[..good.len() / 2].to_vec(), vec![0; good.len()]] {
        fs::write(&path, &damaged).unwrap();
        let error = Records::open(dir.path()).err().unwrap();
        assert!(matches!(error, Error::DamagedDatabase { .. }), "{error:?}");
        assert!(error.to_string().contains("hint:"));
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, good).unwrap();
    Records::open(dir.path()).unwrap();
}

#[test]
fn a_damaged_record_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Records::open(dir.path()).unwrap());
    let database = Database::open(dir.path().join("records.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(SNAPSHOTS).unwrap().insert("broken", b"{}".as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(Records::open(dir.path()), Err(Error::BadRecord { name, .. }) if name == "broken"));
}

#[test]
fn records_of_a_newer_release_and_records_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::open(dir.path()).unwrap();
    assert!(matches!(Records::open(dir.path()), Err(Error::DatabaseInUse { .. })));
    drop(records);
    let database = Database::open(dir.path().join("records.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("version", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(Records::open(dir.path()), Err(Error::NewerDatabase { found: 2, supported: 1, .. })));
}
