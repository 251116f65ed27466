//! containerd's CRI image service, passed through: every call goes to containerd as it came, and so does every answer.
//!
//! A kubelet that has our socket as its image service endpoint pulls through here. Of its calls only `PullImage` is looked into,
//! for the credential that it carries: the layers of that image are read after the pull, too.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::cri_credentials::CriCredentials;
use crate::cri_pull::credential_in;
use crate::cri_upstream::{Upstream, UpstreamError};
use crate::limits::MAX_CRI_PULL_BYTES;

const PULL_METHOD: &str = "/PullImage";
const GRPC_STATUS: &str = "grpc-status";

/// Passes `runtime.v1.ImageService` and `runtime.v1alpha2.ImageService` on to containerd. Clones share everything.
#[derive(Clone)]
pub struct CriProxy(Arc<Proxy>);

struct Proxy {
    upstream: Upstream,
    credentials: Arc<CriCredentials>,
}

impl CriProxy {
    /// `containerd` is the socket of containerd's CRI: the same as its ordinary one. Nothing is connected to before there is a
    /// call, and again whenever the connection has ended. What kubelets send goes into `credentials`.
    pub fn new(containerd: PathBuf, credentials: Arc<CriCredentials>) -> Self {
        Self(Arc::new(Proxy { upstream: Upstream::new(containerd), credentials }))
    }

    /// `routes`, and the image services of both versions of the CRI.
    pub fn add_to(self, routes: Routes) -> Routes {
        routes.add_service(ImageService::<V1>::new(self.clone())).add_service(ImageService::<V1Alpha2>::new(self))
    }
}

impl Proxy {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let answer = if path.ends_with(PULL_METHOD) { self.pull(request).await } else { self.pass_on(request).await };
        answer.unwrap_or_else(|error| {
            tracing::warn!(call = path, %error, "a call to containerd's image service failed");
            error.into_status().into_http()
        })
    }

    async fn pass_on(&self, request: Request<Body>) -> Result<Response<Body>, CriError> {
        Ok(self.upstream.send(request).await?)
    }

    /// The credential has to be known before containerd is: it asks for the layers in the middle of the pull.
    async fn pull(&self, request: Request<Body>) -> Result<Response<Body>, CriError> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_CRI_PULL_BYTES)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { CriError::PullTooLarge } else { CriError::PullBroken(error) })?;
        let body = body.to_bytes();
        let kept = credential_in(&body).and_then(|(name, credential)| self.credentials.keep(name, credential));
        let answer = self.upstream.send(Request::from_parts(head, Body::new(Full::new(body)))).await;
        let Some(kept) = kept else { return Ok(answer?) };
        if answer.as_ref().is_ok_and(|answer| !is_refusal(answer)) {
            let credentials = self.credentials.clone();
            // When the kubelet hears of its success, what it sent is on disk. A panic in there is no reason to fail the pull.
            let _ = tokio::task::spawn_blocking(move || credentials.save()).await;
        } else {
            self.credentials.withdraw(kept);
        }
        Ok(answer?)
    }
}

/// Whether an answer is an error and nothing else: gRPC then has the status in the headers.
fn is_refusal(answer: &Response<Body>) -> bool {
    answer.headers().get(GRPC_STATUS).is_some_and(|status| status.as_bytes() != b"0")
}

/// Why a call did not come to containerd, or back.
#[derive(Debug, thiserror::Error)]
enum CriError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("a request to pull an image is longer than {MAX_CRI_PULL_BYTES} bytes")]
    PullTooLarge,
    #[error("a request to pull an image broke off: {0}")]
    PullBroken(Box<dyn std::error::Error + Send + Sync>),
}

impl CriError {
    fn into_status(self) -> tonic::Status {
        let message = self.to_string();
        match self {
            Self::Upstream(_) => tonic::Status::unavailable(message),
            Self::PullTooLarge => tonic::Status::resource_exhausted(message),
            Self::PullBroken(_) => tonic::Status::cancelled(message),
        }
    }
}

/// A version of the CRI.
trait Version: Send + Sync + 'static {
    const SERVICE: &'static str;
}

struct V1;
struct V1Alpha2;

impl Version for V1 {
    const SERVICE: &'static str = "runtime.v1.ImageService";
}

impl Version for V1Alpha2 {
    const SERVICE: &'static str = "runtime.v1alpha2.ImageService";
}

/// The proxy under one service's name.
struct ImageService<V> {
    proxy: CriProxy,
    version: PhantomData<V>,
}

impl<V> ImageService<V> {
    fn new(proxy: CriProxy) -> Self {
        Self { proxy, version: PhantomData }
    }
}

impl<V> Clone for ImageService<V> {
    fn clone(&self) -> Self {
        Self::new(self.proxy.clone())
    }
}

impl<V: Version> NamedService for ImageService<V> {
    const NAME: &'static str = V::SERVICE;
}

impl<V: Version> Service<Request<Body>> for ImageService<V> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let proxy = self.proxy.clone();
        Box::pin(async move { Ok(proxy.0.answer(request).await) })
    }
}
