//! A gRPC client that leaves messages as the bytes they are, so that two answers can be compared whole.

use std::path::Path;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Response, Status};

/// The identity, both ways.
#[derive(Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// A client of the server at the socket `path`.
pub(crate) fn client(path: &Path) -> Grpc<Channel> {
    Grpc::new(Endpoint::try_from(format!("unix://{}", path.display())).unwrap().connect_lazy())
}

/// Calls `method`, `/SERVICE/METHOD`.
pub(crate) async fn call(client: &Grpc<Channel>, method: &str, message: impl IntoRequest<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    let mut client = client.clone();
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    client.unary(message.into_request(), PathAndQuery::try_from(method).unwrap(), RawCodec).await
}
