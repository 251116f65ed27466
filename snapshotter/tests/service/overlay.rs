//! The mounts, mounted. Needs root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use snap_snapshotter::api::types::Mount;

use crate::harness::{HIDES_ALL, Labels, Rig, digest};

/// Mounted until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(directory: PathBuf, what: &Mount) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
        for option in &what.options {
            match option.as_str() {
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                "ro" | "rw" => {}
                option => data.push(option),
            }
        }
        let data = data.join(",");
        mount(Some(what.source.as_str()), &directory, Some(what.r#type.as_str()), flags, Some(data.as_str())).unwrap();
        Self(directory)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn runs_and_ordinary_snapshots_stack_up_in_order() {
    let mut rig = Rig::start().await;
    let at = |name: &str| Path::new("/").join(rig.dir.path()).join(name);
    let (first, second) = (at("first"), at("second"));
    rig.served(1, "").await;
    rig.served(2, &digest(1).to_string()).await;
    let unpacking = rig.prepare("unpacking", &digest(2).to_string(), Labels::new()).await.unwrap();
    assert_eq!(unpacking[0].options.last().unwrap().matches(':').count(), 0, "two layers are one lower directory");
    {
        let root = Mounted::at(first, &unpacking[0]);
        assert_eq!(root.names(), ["file-1", "file-2", "shared"]);
        assert_eq!(root.read("shared"), [2]);
        assert_eq!((fs::metadata(&root.0).unwrap().uid(), fs::metadata(&root.0).unwrap().gid()), (1234, 4321));
        fs::write(root.0.join("shared"), b"ordinary").unwrap();
        fs::remove_file(root.0.join("file-1")).unwrap();
    }
    rig.commit("unpacking", "ordinary", Labels::new()).await.unwrap();
    rig.served(3, "ordinary").await;
    let container = rig.prepare("container", &digest(3).to_string(), Labels::new()).await.unwrap();
    assert_eq!(container, rig.mounts("container").await.unwrap());
    assert_eq!(container[0].options.last().unwrap().matches(':').count(), 2);
    let root = Mounted::at(second, &container[0]);
    assert_eq!(root.names(), ["file-2", "file-3", "shared"]);
    assert_eq!(root.read("shared"), [3]);
    fs::write(root.0.join("written"), b"here").unwrap();
    assert!(rig.usage("container").await.unwrap().inodes >= 2);
}

#[tokio::test]
async fn what_a_run_hides_as_a_whole_is_not_mounted() {
    let mut rig = Rig::start().await;
    rig.prepare("unpacking", "", Labels::new()).await.unwrap();
    rig.commit("unpacking", "ordinary", Labels::new()).await.unwrap();
    rig.served(HIDES_ALL, "ordinary").await;
    rig.served(2, &digest(HIDES_ALL).to_string()).await;
    let container = rig.prepare("container", &digest(2).to_string(), Labels::new()).await.unwrap();
    assert_eq!(container[0].options.last().unwrap().matches(':').count(), 0, "one lower directory: {container:?}");
    rig.served(3, "ordinary").await;
    let container = rig.prepare("other", &digest(3).to_string(), Labels::new()).await.unwrap();
    assert_eq!(container[0].options.last().unwrap().matches(':').count(), 1);
}

#[tokio::test]
async fn a_view_of_served_layers_is_their_directory() {
    let mut rig = Rig::start().await;
    rig.served(1, "").await;
    rig.served(2, &digest(1).to_string()).await;
    let view = rig.view("view", &digest(2).to_string()).await.unwrap();
    assert_eq!((view[0].r#type.as_str(), view[0].options.as_slice()), ("bind", ["ro".to_owned(), "rbind".to_owned()].as_slice()));
    let root = Mounted::at(rig.dir.path().join("mounted"), &view[0]);
    assert_eq!(root.names(), ["file-1", "file-2", "shared"]);
}
