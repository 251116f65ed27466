//! Calls and answers pass as they are, and what is wrong with containerd is said.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::uri::PathAndQuery;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::raw::{RawCodec, call};
use crate::served::Served;
use crate::upstream::{answer, frame, message_of, refusal, success};

const LIST: &str = "/runtime.v1.ImageService/ListImages";

#[tokio::test]
async fn a_call_passes_with_its_metadata_both_ways() {
    let respond = async |request| {
        let mut answer = answer(vec![frame(&message_of(request).await)], &[("grpc-status", "0"), ("x-end", "trailer")]);
        answer.headers_mut().insert("x-begin", "header".parse().unwrap());
        answer
    };
    for service in ["runtime.v1.ImageService", "runtime.v1alpha2.ImageService"] {
        let (served, upstream) = Served::before(respond);
        // More than fits into one frame of HTTP/2, or into its window.
        let message: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let mut request = Request::new(message.clone());
        request.metadata_mut().insert("x-text", "of a kind".parse().unwrap());
        request.metadata_mut().append("x-text", "twice".parse().unwrap());
        request.metadata_mut().insert_bin("x-some-bin", MetadataValue::from_bytes(b"\0\xff"));
        let answer = call(&served.client, &format!("/{service}/AnyMethod"), request).await.unwrap();
        assert!(answer.get_ref() == &message);
        assert_eq!(answer.metadata().get("x-begin").unwrap(), "header");
        assert_eq!(answer.metadata().get("x-end").unwrap(), "trailer");
        let [seen] = &upstream.seen()[..] else { panic!("one call") };
        assert_eq!(seen.path, format!("/{service}/AnyMethod"));
        assert_eq!(seen.headers.get_all("x-text").iter().collect::<Vec<_>>(), ["of a kind", "twice"]);
        assert_eq!(seen.headers["x-some-bin"], "AP8");
        assert_eq!(
            (&seen.headers["te"], &seen.headers["content-type"]),
            (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
        );
        assert!(!seen.headers.contains_key("grpc-timeout"));
    }
}

#[tokio::test]
async fn an_error_passes_with_its_details() {
    let (served, _upstream) = Served::before(async |_| {
        refusal(&[("grpc-status", "5"), ("grpc-message", "no %22image%22"), ("grpc-status-details-bin", "AQI"), ("x-more", "yes")])
    });
    let error = call(&served.client, LIST, Vec::new()).await.unwrap_err();
    assert_eq!((error.code(), error.message(), error.details()), (Code::NotFound, "no \"image\"", &[1, 2][..]));
    assert_eq!(error.metadata().get("x-more").unwrap(), "yes");
}

#[tokio::test]
async fn streams_flow_both_ways_message_by_message() {
    let (served, _upstream) = Served::before(async |request: http::Request<_>| {
        let mut answer = success(b"");
        *answer.body_mut() = Body::new(request.into_body());
        answer
    });
    let (send, messages) = mpsc::channel(1);
    let mut client = served.client.clone();
    client.ready().await.unwrap();
    let request = Request::new(ReceiverStream::new(messages));
    let mut echo = client.streaming(request, PathAndQuery::from_static(LIST), RawCodec).await.unwrap().into_inner();
    for message in [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()] {
        send.send(message.clone()).await.unwrap();
        // The next is sent only after this one is back.
        assert_eq!(echo.next().await.unwrap().unwrap(), message);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let (served, _upstream) = Served::before(async |_| {
        let mut answer = success(b"");
        let frames = [Ok(Frame::data(frame(b"part"))), Err(std::io::Error::other("broken"))];
        *answer.body_mut() = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        answer
    });
    call(&served.client, LIST, Vec::new()).await.unwrap_err();
}

#[tokio::test]
async fn a_deadline_passes_and_its_end_reaches_containerd() {
    let (ended, end) = oneshot::channel::<Infallible>();
    let ended = Arc::new(Mutex::new(Some(ended)));
    let (served, upstream) = Served::before(move |_| {
        // Dropped when the call is given up.
        let ended = ended.lock().unwrap().take();
        async move {
            let _ended = ended;
            std::future::pending().await
        }
    });
    let mut request = Request::new(vec![]);
    request.set_timeout(Duration::from_millis(200));
    let error = call(&served.client, LIST, request).await.unwrap_err();
    assert!(matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded), "{error}");
    assert!(end.await.is_err());
    assert!(upstream.seen()[0].headers.contains_key("grpc-timeout"));
}

#[tokio::test]
async fn without_containerd_the_error_says_so_and_it_may_come_later_and_go() {
    let served = Served::new(None);
    let error = call(&served.client, LIST, Vec::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let expected = format!("containerd's CRI cannot be reached at {}: No such file or directory", served.containerd().display());
    assert!(error.message().starts_with(&expected) && error.message().contains("hint: is containerd running"), "{error}");
    for name in [&b"first"[..], b"second", b"third"] {
        let upstream = served.upstream(move |_| async move { success(name) });
        assert_eq!(until_available(&served).await, name);
        // The same connection does for more calls.
        assert_eq!(call(&served.client, LIST, Vec::new()).await.unwrap().into_inner(), name);
        upstream.kill().await;
    }
}

/// A call that was under way when the connection ended cannot be sent twice, so one may fail.
async fn until_available(served: &Served) -> Vec<u8> {
    let mut failures = Vec::<Status>::new();
    loop {
        match call(&served.client, LIST, Vec::new()).await {
            Ok(answer) => return answer.into_inner(),
            Err(error) => failures.push(error),
        }
        assert!(failures.iter().all(|error| error.code() == Code::Unavailable) && failures.len() < 3, "{failures:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_http_2_is_unavailable() {
    let served = Served::new(None);
    let listener = tokio::net::UnixListener::bind(served.containerd()).unwrap();
    let task = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let error = call(&served.client, LIST, Vec::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("containerd ended the connection"), "{error}");
    task.abort();
}

#[tokio::test]
async fn other_services_are_not_passed_on() {
    let (served, upstream) = Served::before(async |_| success(b""));
    for method in ["/runtime.v1.RuntimeService/Version", "/containerd.services.content.v1.Content/List"] {
        assert_eq!(call(&served.client, method, Vec::new()).await.unwrap_err().code(), Code::Unimplemented);
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn many_calls_at_a_time_share_the_connection() {
    let (served, upstream) = Served::before(async |request: http::Request<hyper::body::Incoming>| {
        success(&request.into_body().collect().await.unwrap().to_bytes()[5..])
    });
    let calls = (0..100_u8).map(|number| {
        let client = served.client.clone();
        tokio::spawn(async move { call(&client, LIST, vec![number]).await.unwrap().into_inner() == [number] })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap());
    }
    assert_eq!(upstream.seen().len(), 100);
}
