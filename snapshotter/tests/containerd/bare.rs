//! A containerd that runs no containers, in each of the versions that `ci/daemons` installs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use snap_digest::Digest;
use snap_registry::Descriptor;
use snap_snapshotter::containerd::{Begin, Containerd, ContainerdErrorKind, ContentWriter};

use crate::daemon::succeed;

/// How long containerd may take to be ready, or to let go of a write.
const TRIES: usize = 600;
const POLL: Duration = Duration::from_millis(50);

pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const MIB: usize = 1 << 20;

/// Runs each of the named tests with every version.
macro_rules! on_each_containerd {
    (@ $module:ident $name:literal $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(crate::bare::Bare::start($name).await).await;
                }
            )*
        }
    };
    ($($test:ident)*) => {
        crate::bare::on_each_containerd! { @ v1_6 "containerd-1.6" $($test)* }
        crate::bare::on_each_containerd! { @ v1_7 "containerd-1.7" $($test)* }
        crate::bare::on_each_containerd! { @ v2 "containerd-2" $($test)* }
    };
}
pub(crate) use on_each_containerd;

/// A daemon, as `ci/daemons --list` tells it.
#[derive(Deserialize)]
struct Installed {
    name: String,
    version: String,
    /// The folder of its programs.
    bin: PathBuf,
}

pub(crate) struct Bare {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) version: String,
    bin: PathBuf,
    process: Option<Child>,
}

impl Bare {
    pub(crate) async fn start(name: &str) -> Self {
        let Installed { version, bin, .. } = installed(name);
        let parent = std::env::var("SNAP_E2E_CACHE").expect("SNAP_E2E_CACHE is not set: run these tests with ci/test");
        let dir = tempfile::tempdir_in(parent).unwrap();
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[grpc]
  address = "{dir}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"

# Its socket is the same for every containerd of a machine.
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#,
            dir = dir.path().display()
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut bare = Self { dir, version, bin, process: None };
        bare.resume().await;
        bare
    }

    /// Starts it, or starts it again after `kill`.
    pub(crate) async fn resume(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(self.bin.join("containerd"));
        command.arg("--config").arg(self.dir.path().join("config.toml")).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let mut poll = tokio::time::interval(POLL);
        for _ in 0..TRIES {
            poll.tick().await;
            if Containerd::connect(&self.socket(), "default").await.is_ok() {
                return;
            }
        }
        panic!("containerd is not ready\n{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Stops it from running, without an end.
    pub(crate) fn hang(&self) {
        let pid = self.process.as_ref().unwrap().id().cast_signed();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// The namespace `default`, with a lease that holds what is made.
    pub(crate) async fn leased(&self, lease: &str) -> Containerd {
        let containerd = Containerd::connect(&self.socket(), "default").await.unwrap();
        containerd.create_lease(lease, Duration::from_secs(3600)).await.unwrap();
        containerd.with_lease(lease).unwrap()
    }

    pub(crate) fn ctr_command(&self) -> Command {
        let mut command = Command::new(self.bin.join("ctr"));
        command.arg("--address").arg(self.socket());
        command
    }

    /// Runs ctr, which must succeed, and gives what it printed.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        succeed(self.ctr_command().args(arguments))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn installed(name: &str) -> Installed {
    let list = std::env::var("SNAP_E2E_DAEMONS").expect("SNAP_E2E_DAEMONS is not set: run these tests with ci/test");
    let lines = std::fs::read_to_string(&list).unwrap_or_else(|error| panic!("{list}: {error}"));
    let daemons = lines.lines().map(|line| serde_json::from_str::<Installed>(line).unwrap());
    daemons.into_iter().find(|daemon| daemon.name == name).unwrap_or_else(|| panic!("{name} was not installed"))
}

/// Bytes that differ from megabyte to megabyte and from seed to seed, and their descriptor as a layer.
pub(crate) fn layer_bytes(seed: u64, count: usize) -> (Bytes, Descriptor) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Bytes = (0..count.div_ceil(8))
        .flat_map(|_| {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(count)
        .collect();
    let descriptor = Descriptor::of(&bytes, LAYER);
    (bytes, descriptor)
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The writer of content that is not there; waits while containerd has not let go of an earlier one.
pub(crate) async fn writer(containerd: &Containerd, descriptor: &Descriptor) -> ContentWriter {
    let mut poll = tokio::time::interval(POLL);
    for _ in 0..TRIES {
        poll.tick().await;
        match containerd.begin_write(descriptor).await {
            Ok(Begin::Writer(writer)) => return *writer,
            Ok(Begin::Here) => panic!("{} is there", descriptor.digest),
            Err(error) => assert_eq!(error.kind(), ContainerdErrorKind::Busy, "{error}"),
        }
    }
    panic!("{} stays locked", descriptor.digest);
}

/// What is there of the content, whole.
pub(crate) async fn read(containerd: &Containerd, digest: &Digest) -> Bytes {
    containerd.read_content(digest, 1 << 30).await.unwrap()
}
