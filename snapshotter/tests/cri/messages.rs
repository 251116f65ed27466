//! Those messages of the CRI's image service that the tests write or read.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    pub(crate) auth: Option<AuthConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(crate) image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AuthConfig {
    #[prost(string, tag = "1")]
    pub(crate) username: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

/// A request to pull `image`, with the password of `me` if one is given.
pub(crate) fn pull(image: &str, password: Option<&str>) -> Vec<u8> {
    let auth = password.map(|password| AuthConfig { username: "me".to_owned(), password: password.to_owned() });
    PullImageRequest { image: Some(ImageSpec { image: image.to_owned() }), auth }.encode_to_vec()
}
