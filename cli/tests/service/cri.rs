//! Kubernetes' container runtime interface, spoken to containerd as the kubelet does.

mod messages;

use std::path::Path;
use std::str::FromStr;

use prost::Message;
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::client::{Client, Spoken};
use crate::containerd::Containerd;
use crate::images::image;
use crate::process::wait_until;
use messages::{
    AuthConfig, ContainerConfig, ContainerId, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusResponse,
    CreateContainerRequest, Empty, ExecSyncRequest, ExecSyncResponse, Image, ImageRequest, ImageSpec, ImageStatusResponse,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PullImageRequest, PullImageResponse, RunPodSandboxRequest, SandboxId,
    StopContainerRequest,
};

const EXEC_TIMEOUT_S: i64 = 60;

/// The kubelet's side of the interface, with one pod on the host's network.
pub(crate) struct Cri<'c, 'm> {
    containerd: &'c Containerd<'m>,
    runtime: Runtime,
    containers: Channel,
    images: Channel,
    sandbox: std::cell::OnceCell<String>,
}

impl<'c, 'm> Cri<'c, 'm> {
    pub(crate) fn new(containerd: &'c Containerd<'m>) -> Self {
        Self::with_images_at(containerd, &containerd.socket())
    }

    /// As a kubelet that was given an image service endpoint of its own.
    pub(crate) fn with_images_at(containerd: &'c Containerd<'m>, image_service: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connect = |socket: &Path| {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
            runtime.block_on(async { endpoint.connect_lazy() })
        };
        let (containers, images) = (connect(&containerd.socket()), connect(image_service));
        let cri = Self { containerd, runtime, containers, images, sandbox: std::cell::OnceCell::new() };
        // The service comes up after the socket.
        wait_until("CRI answers", || cri.image("of/nothing:at-all").is_ok());
        cri
    }

    fn call<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_str(&format!("/runtime.v1.{service}/{method}")).unwrap();
        let channel = if service == "ImageService" { &self.images } else { &self.containers };
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
            Ok(answer.into_inner())
        })
    }

    #[track_caller]
    fn runtime_call<A: Message + Default + 'static>(&self, method: &str, request: impl Message + 'static) -> A {
        self.call("RuntimeService", method, request).unwrap_or_else(|status| panic!("{method}: {status}"))
    }

    /// None where there is no such image.
    fn image(&self, reference: &str) -> Result<Option<Image>, Status> {
        let request = ImageRequest { image: Some(ImageSpec { image: reference.to_owned() }) };
        Ok(self.call::<_, ImageStatusResponse>("ImageService", "ImageStatus", request)?.image)
    }

    pub(crate) fn pull_as(&self, reference: &str, user: Option<(&str, &str)>) -> Result<(), Status> {
        let auth = user.map(|(username, password)| AuthConfig { username: username.to_owned(), password: password.to_owned() });
        let request = PullImageRequest { image: Some(ImageSpec { image: reference.to_owned() }), auth };
        let answer: PullImageResponse = self.call("ImageService", "PullImage", request)?;
        assert!(!answer.image_ref.is_empty());
        Ok(())
    }

    fn pod(&self) -> PodSandboxConfig {
        let on_host = NamespaceOption { network: NamespaceMode::Node.into() };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { name: "pod".to_owned(), uid: "1".to_owned(), namespace: "tests".to_owned() }),
            log_directory: self.containerd.machine.run("logs").to_str().unwrap().to_owned(),
            linux: Some(LinuxPodSandboxConfig { security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(on_host) }) }),
        }
    }

    /// The pod, which is started with the first container.
    fn sandbox(&self) -> &str {
        self.sandbox.get_or_init(|| {
            let answer: SandboxId = self.runtime_call("RunPodSandbox", RunPodSandboxRequest { config: Some(self.pod()) });
            answer.pod_sandbox_id
        })
    }

    fn status(&self, container: &str) -> ContainerStatus {
        let answer: ContainerStatusResponse = self.runtime_call("ContainerStatus", ContainerId { container_id: container.to_owned() });
        answer.status.unwrap()
    }

    fn create(&self, reference: &str, name: &str, command: &[&str]) -> String {
        let on_host = NamespaceOption { network: NamespaceMode::Node.into() };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(ImageSpec { image: reference.to_owned() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext { namespace_options: Some(on_host) }),
            }),
        };
        let pod_sandbox_id = self.sandbox().to_owned();
        let request = CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: Some(self.pod()) };
        let created: ContainerId = self.runtime_call("CreateContainer", request);
        created.container_id
    }
}

/// Pulls an image, which downloads no layer, and runs it.
pub(crate) fn use_lazily(containerd: &Containerd<'_>) {
    let (tiny, mut cri) = (image("tiny", "gzip"), Cri::new(containerd));
    cri.pull(&tiny.reference).unwrap();
    assert!(!tiny.layers().iter().any(|layer| containerd.blobs(cri.namespace()).contains(layer)));
    let container = cri.start(&tiny.reference, "short", &["/bin/cat", "/etc/motd"]);
    assert_eq!(cri.wait(&container, "short").well(), "Replaced by the second layer.\n");
    cri.remove(&container);
    cri.finish();
}

impl Client for Cri<'_, '_> {
    fn namespace(&self) -> &'static str {
        "k8s.io"
    }

    fn pull(&self, reference: &str) -> Result<(), String> {
        self.pull_as(reference, None).map_err(|status| status.to_string())
    }

    fn start(&self, reference: &str, name: &str, command: &[&str]) -> String {
        let container_id = self.create(reference, name, command);
        self.runtime_call::<Empty>("StartContainer", ContainerId { container_id: container_id.clone() });
        container_id
    }

    fn wait(&self, container: &str, name: &str) -> Spoken {
        wait_until("the container ends", || self.status(container).state() == ContainerState::Exited);
        let log = self.containerd.machine.run("logs").join(format!("{name}.log"));
        // Each line is `TIME STREAM F|P TEXT`.
        let text = std::fs::read_to_string(&log).unwrap();
        // A container of the same name would append to it.
        std::fs::remove_file(log).unwrap();
        let lines = text.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
        let said = lines.map(|fields| [fields[3], if fields[2] == "F" { "\n" } else { "" }].concat()).collect();
        Spoken { status: self.status(container).exit_code, said, complained: self.status(container).message }
    }

    fn exec(&self, container: &str, command: &[&str]) -> Spoken {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout_s: EXEC_TIMEOUT_S };
        let answer: ExecSyncResponse = self.runtime_call("ExecSync", request);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Spoken { status: answer.exit_code, said: text(answer.stdout), complained: text(answer.stderr) }
    }

    fn remove(&self, container: &str) {
        let stop = StopContainerRequest { container_id: container.to_owned(), timeout_s: 0 };
        self.runtime_call::<Empty>("StopContainer", stop);
        self.runtime_call::<Empty>("RemoveContainer", ContainerId { container_id: container.to_owned() });
    }

    fn remove_image(&self, reference: &str) {
        let request = ImageRequest { image: Some(ImageSpec { image: reference.to_owned() }) };
        let _: Empty = self.call("ImageService", "RemoveImage", request).unwrap();
        assert_eq!(self.image(reference).unwrap(), None);
    }

    fn finish(&mut self) {
        if let Some(pod_sandbox_id) = self.sandbox.take() {
            self.runtime_call::<Empty>("StopPodSandbox", SandboxId { pod_sandbox_id: pod_sandbox_id.clone() });
            self.runtime_call::<Empty>("RemovePodSandbox", SandboxId { pod_sandbox_id });
        }
        self.remove_image(&crate::images::pause());
    }
}
