//! Debian's containerd behind the proxy, and its registry with a password in front: the same answers through the proxy as without.
//!
//! `ci/test` makes what is needed: SNAP_E2E_IMAGES lists images as JSON lines, SNAP_E2E_CACHE is a folder on a real file system.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use prost::Message;
use snap_registry::{Client, ClientOptions, Reference};
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::messages::{ImageSpec, PullImageRequest, pull};
use crate::raw::{call, client};
use crate::served::Served;

const PASSWORD: &str = "secret";
/// How long containerd may take to be ready.
const READY_TRIES: usize = 600;
const READY_POLL: Duration = Duration::from_millis(50);

#[derive(Clone, PartialEq, Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

/// Of ImageFsInfo's answer that which does not change between two calls.
#[derive(Clone, PartialEq, Message)]
struct ImageFsInfoResponse {
    #[prost(message, repeated, tag = "1")]
    filesystems: Vec<FilesystemUsage>,
}

#[derive(Clone, PartialEq, Message)]
struct FilesystemUsage {
    #[prost(message, optional, tag = "2")]
    identifier: Option<FilesystemIdentifier>,
}

#[derive(Clone, PartialEq, Message)]
struct FilesystemIdentifier {
    #[prost(string, tag = "1")]
    mountpoint: String,
}

/// A containerd of its own; killed at the end.
struct Containerd {
    process: Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("containerd.sock");
        let config = dir.join("config.toml");
        let text = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"

[grpc]
  address = "{dir}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{dir}/cni"
  conf_dir = "{dir}/cni"
"#,
            dir = dir.display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let process = Command::new("containerd").arg("--config").arg(&config).stderr(log).spawn().unwrap();
        Self { process, socket }
    }

    /// Waits until the CRI has come up.
    async fn ready(&self) -> Grpc<Channel> {
        let client = client(&self.socket);
        let mut poll = tokio::time::interval(READY_POLL);
        let mut last = None;
        for _ in 0..READY_TRIES {
            poll.tick().await;
            match call(&client, &v1("ListImages"), Vec::new()).await {
                Ok(_) => return client,
                Err(error) => last = Some(error),
            }
        }
        panic!("containerd is not ready: {last:?}");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A registry that asks for the password of `me`, with the image `team/app:1`; stopped at the end.
struct Registry {
    dir: PathBuf,
    address: String,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let dir = dir.join("registry");
        let storage = dir.join("storage");
        let auth = format!("me:{PASSWORD}");
        let output = ci("start", &dir).args(["--port", "0", "--auth", &auth, "--storage"]).arg(&storage).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let registry = Self { dir, address };
        let copy = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", &auth, &layout()])
            .arg(format!("docker://{}", registry.image()))
            .output()
            .unwrap();
        assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
        registry
    }

    fn image(&self) -> String {
        format!("{}/team/app:1", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let status = ci("stop", &self.dir).status().unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

fn ci(action: &str, dir: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/registry"));
    command.args([action, "--dir"]).arg(dir).stdin(Stdio::null());
    command
}

/// `oci:DIR:TAG` of a small image.
fn layout() -> String {
    let list = std::env::var("SNAP_E2E_IMAGES").expect("SNAP_E2E_IMAGES is not set: run these tests with ci/test");
    let lines = BufReader::new(std::fs::File::open(&list).unwrap()).lines();
    let images = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let mut tiny = images.filter(|image| image["name"] == "tiny" && image["variant"] == "gzip");
    tiny.next().unwrap_or_else(|| panic!("{list} lists no tiny:gzip"))["layout"].as_str().unwrap().to_owned()
}

fn scratch() -> TempDir {
    let parent = std::env::var("SNAP_E2E_CACHE").expect("SNAP_E2E_CACHE is not set: run these tests with ci/test");
    tempfile::tempdir_in(parent).unwrap()
}

fn v1(method: &str) -> String {
    format!("/runtime.v1.ImageService/{method}")
}

/// The request of ImageStatus and RemoveImage.
fn naming(image: &str) -> Vec<u8> {
    PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }), auth: None }.encode_to_vec()
}

/// An answer with all that it brings but the date.
type Answer = Result<Vec<u8>, (Code, String, Vec<u8>)>;

async fn ask(client: &Grpc<Channel>, method: &str, message: Vec<u8>) -> Answer {
    let comparable = |error: Status| (error.code(), error.message().to_owned(), error.details().to_vec());
    call(client, method, message).await.map(tonic::Response::into_inner).map_err(comparable)
}

/// Asks through the proxy and without, which has to give the same.
async fn ask_both(served: &Served, direct: &Grpc<Channel>, method: &str, message: &[u8]) -> Answer {
    let through = ask(&served.client, method, message.to_vec()).await;
    assert_eq!(through, ask(direct, method, message.to_vec()).await, "{method}");
    through
}

#[tokio::test]
async fn containerd_answers_the_same_through_the_proxy_and_its_credential_opens_the_registry() {
    let dir = scratch();
    let registry = Registry::start(dir.path());
    let image = registry.image();
    // The proxy is there first, as a daemon may be.
    let served = Served::new(Some(dir.path().join("containerd.sock")));
    assert_eq!(ask(&served.client, &v1("ListImages"), Vec::new()).await.unwrap_err().0, Code::Unavailable);
    let containerd = Containerd::start(dir.path());
    let direct = containerd.ready().await;

    for service in ["runtime.v1", "runtime.v1alpha2"] {
        assert_eq!(ask_both(&served, &direct, &format!("/{service}.ImageService/ListImages"), &[]).await, Ok(Vec::new()));
    }
    assert_eq!(ask_both(&served, &direct, &v1("NoSuchMethod"), &[]).await.unwrap_err().0, Code::Unimplemented);
    assert_eq!(ask_both(&served, &direct, &v1("ImageStatus"), &naming(&image)).await, Ok(Vec::new()));

    let refused = ask_both(&served, &direct, &v1("PullImage"), &pull(&image, None)).await.unwrap_err();
    assert!(refused.1.contains("authorization failed") || refused.1.contains("401"), "{refused:?}");
    ask(&served.client, &v1("PullImage"), pull(&image, Some("wrong"))).await.unwrap_err();
    assert!(served.credentials.is_empty());
    let pulled = ask_both(&served, &direct, &v1("PullImage"), &pull(&image, Some(PASSWORD))).await.unwrap();
    let image_ref = PullImageResponse::decode(&pulled[..]).unwrap().image_ref;
    assert!(image_ref.starts_with("sha256:"), "{image_ref}");
    ask(&served.client, &v1("PullImage"), pull(&image, Some("wrong"))).await.unwrap_err();

    assert!(!ask_both(&served, &direct, &v1("ListImages"), &[]).await.unwrap().is_empty());
    assert!(!ask_both(&served, &direct, &v1("ImageStatus"), &naming(&image)).await.unwrap().is_empty());
    let mut mounts = Vec::new();
    for client in [&served.client, &direct] {
        let answer = ask(client, &v1("ImageFsInfo"), Vec::new()).await.unwrap();
        mounts.push(ImageFsInfoResponse::decode(&answer[..]).unwrap());
    }
    assert!(mounts[0] == mounts[1] && mounts[0].filesystems.len() == 1, "{mounts:?}");

    read_with_what_was_kept(&served, &image).await;

    // An upgrade of containerd.
    drop(containerd);
    let containerd = Containerd::start(dir.path());
    let direct = containerd.ready().await;
    assert!(!ask_both(&served, &direct, &v1("ListImages"), &[]).await.unwrap().is_empty());
    assert_eq!(ask(&served.client, &v1("RemoveImage"), naming(&image_ref)).await, Ok(Vec::new()));
    assert_eq!(ask_both(&served, &direct, &v1("ImageStatus"), &naming(&image)).await, Ok(Vec::new()));
}

/// A client with the credentials of the proxy, and with those that are on disk, reads the image at its digest; one without does not.
async fn read_with_what_was_kept(served: &Served, image: &str) {
    let reference: Reference = image.parse().unwrap();
    let options = |credentials| ClientOptions { credentials, docker_config: Some("/nonexistent/config.json".into()), ..Default::default() };
    let with_what_is_kept = Client::new(options(Some(served.credentials.clone()))).unwrap();
    let with_what_is_saved = Client::new(options(Some(std::sync::Arc::new(served.saved())))).unwrap();
    let manifest = with_what_is_kept.source(&reference).unwrap().resolve().await.unwrap();
    let pinned = reference.at_digest(manifest.digest).unwrap();
    for client in [with_what_is_kept, with_what_is_saved] {
        let source = client.source(&pinned).unwrap();
        assert_eq!(source.pinned(), Some(manifest.digest));
        source.document(&manifest).await.unwrap();
    }
    let without = Client::new(options(None)).unwrap().source(&pinned).unwrap();
    assert_eq!(without.resolve().await.unwrap_err().kind(), snap_registry::ErrorKind::Unauthorized);
}
