//! An OCI layout made by hand, a state folder and a cache of its own, and the program under test.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snap_digest::Digest;

/// Held by the test that runs. A process that another thread starts has, until it executes its program, a copy of every open file of this
/// one: it would keep a mount busy that its own test has left.
static ALONE: Mutex<()> = Mutex::new(());

/// How long something that must happen may take. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    _alone: MutexGuard<'static, ()>,
    temporary: tempfile::TempDir,
    /// The layer's blob.
    pub(crate) layer: Digest,
}

impl Fixture {
    /// A layout with one image of one tar layer: `hello`, `dir/inner`, and a file of 1 MiB.
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests mount file systems: run them as root");
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse: modprobe fuse, or give the container --device /dev/fuse");
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("root");
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::write(root.join("hello"), "hello world\n").unwrap();
        fs::write(root.join("dir/inner"), "inner\n").unwrap();
        fs::write(root.join("large"), vec![7; 1 << 20]).unwrap();
        let tar = Command::new("tar").args(["--create", "--file=-", "--owner=0", "--group=0", "-C"]).arg(&root).arg(".").output();
        let tar = tar.expect("tar is needed to make a layer").stdout;
        assert!(!tar.is_empty(), "tar made nothing");
        let layer = Digest::of(&tar);
        let fixture = Self { _alone: alone, temporary, layer };
        fixture.write_layout(&tar);
        fs::create_dir(fixture.dir()).unwrap();
        fixture
    }

    fn write_layout(&self, tar: &[u8]) {
        let layout = self.path("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8], media_type: &str| {
            let digest = Digest::of(bytes);
            fs::write(blobs.join(digest.hex()), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        };
        let layer = put(tar, "application/vnd.oci.image.layer.v1.tar");
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
        let manifest = put(manifest.to_string().as_bytes(), media_type);
        fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// A path below the test's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The directory to mount at.
    pub(crate) fn dir(&self) -> PathBuf {
        self.path("mount point")
    }

    /// The image's reference.
    pub(crate) fn image(&self) -> String {
        format!("oci:{}", self.path("layout").display())
    }

    /// The program, with this test's state folder.
    pub(crate) fn snap(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snap"));
        command.env("SNAP_STATE_DIR", self.path("")).env_remove("SNAP_LOG").stdin(Stdio::null());
        command
    }

    /// `snap mount` of the image with further arguments, the last of which is the directory.
    pub(crate) fn mount_command(&self, arguments: &[&str], dir: &Path) -> Command {
        let mut command = self.snap();
        command.arg("mount").arg("--cache-dir").arg(self.path("cache")).arg("--json").args(arguments).arg(self.image()).arg(dir);
        command
    }

    /// Mounts, and gives what the command printed.
    pub(crate) fn mount(&self, arguments: &[&str]) -> Value {
        let output = self.mount_command(arguments, &self.dir()).output().unwrap();
        succeeded(&output);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs `snap umount` on the directory.
    pub(crate) fn umount(&self, arguments: &[&str]) -> Output {
        self.snap().arg("umount").args(arguments).arg(self.dir()).output().unwrap()
    }

    /// What `snap status --json` lists.
    pub(crate) fn status(&self) -> Vec<Value> {
        let output = self.snap().args(["status", "--json"]).output().unwrap();
        succeeded(&output);
        let mut status: Value = serde_json::from_slice(&output.stdout).unwrap();
        serde_json::from_value(status["mounts"].take()).unwrap()
    }

    /// Whether the kernel has anything mounted at or below the test's directories, those in the state folder included.
    pub(crate) fn is_mounted(&self) -> bool {
        !self.mount_points().is_empty()
    }

    fn mount_points(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?.replace("\\040", " "))));
        points.filter(|point| point.starts_with(self.temporary.path())).collect()
    }

    /// Asserts that nothing is left: no mount, no record, no process.
    pub(crate) fn assert_nothing_left(&self, pid: u64) {
        wait_until("the process ends", || !is_running(pid));
        assert!(!self.is_mounted(), "still mounted: {:?}", self.mount_points());
        let left: Vec<_> = fs::read_dir(self.path("mounts")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"], "the state folder keeps records");
    }

    /// Locks the layer as a process does that builds its index, so that others wait for it.
    pub(crate) fn hold_build(&self) -> File {
        let dir = self.path("cache").join("layers/sha256").join(self.layer.hex());
        fs::create_dir_all(&dir).unwrap();
        fs::write(self.path("cache/version"), "snap-cache 1\n").unwrap();
        let file = File::create(dir.join("build")).unwrap();
        file.lock().unwrap();
        file
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // What a failed test left: without a mount, its process ends as well.
        for point in self.mount_points() {
            let _ = Command::new("umount").arg("--lazy").arg(point).status();
        }
    }
}

pub(crate) fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Asserts that a command failed with code 1 and said all of this.
pub(crate) fn failed_with(output: &Output, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") || stderr.contains("\nerror: "), "{stderr}");
    for words in said {
        assert!(stderr.contains(words), "{words:?} is not in:\n{stderr}");
    }
    assert!(output.stdout.is_empty(), "an error leaves nothing on standard output");
}

/// Asserts that a mount's status says that everything is here.
pub(crate) fn assert_complete(status: &Value) {
    assert_eq!(status["complete"], true, "{status}");
    assert_eq!(status["bytes_present"], status["bytes_total"], "{status}");
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn pid_of(mounted: &Value) -> u64 {
    mounted["pid"].as_u64().unwrap()
}

/// Whether a process runs; one that is only waiting to be reaped does not.
pub(crate) fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

pub(crate) fn signal(pid: u64, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Starts a command whose output is kept.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Asserts that a command ended by itself with this code, and not by a signal.
pub(crate) fn ended_with(child: Child, code: i32) -> Output {
    let output = child.wait_with_output().unwrap();
    let mut stderr = std::io::stderr();
    stderr.write_all(&output.stderr).unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(code), None));
    output
}
