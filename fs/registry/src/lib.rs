//! Bytes of a blob by digest and range, from a registry or an OCI layout on disk. What is in a layer is not known here.
//!
//! A [`Reference`] names an image. A [`Client`] turns it into a [`Source`]: a repository in a registry, or a layout.
//! [`resolve_image`] goes from there to an [`Image`]: it resolves the reference, follows image indexes to the platform's
//! manifest, reads the configuration, and keeps every document in the caller's [`DocumentStore`], from which it also
//! lives when the registry does not answer. Documents are verified here, against digest and size.
//!
//! A layer is a [`Blob`], read by range. For a registry, a range becomes a chain of attempts at the hosts configured for it
//! (`chain`); each attempt is one exchange (`host`) with its authorization (`auth`, `credential`, `token`) and its redirects, gives a body
//! that is watched for stalls and drips (`response`), and is resumed where it broke (`body`). Ranges are **not verified**
//! here: only the caller knows the digest of a part.
//!
//! The feature `testing` adds `testing`: a registry on 127.0.0.1 that misbehaves on demand.

mod api_url;
mod auth;
mod body;
mod cause;
mod chain;
mod challenge;
mod client;
mod config_file;
mod credential;
mod credential_helper;
mod descriptor;
mod docker_config;
mod docker_login;
mod error;
mod host;
mod hosts;
mod image;
mod layout;
pub mod limits;
mod link;
mod login;
mod manifest;
mod media_type;
mod platform;
mod redirect;
mod reference;
mod reference_grammar;
mod registry;
mod response;
mod schema1;
mod schema1_convert;
mod secret;
mod source;
mod tags;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;
mod tls;
mod token;

pub use cause::{Cause, Refusal, TlsTrouble};
pub use client::{Client, ClientOptions};
pub use credential::{Credential, CredentialProvider};
pub use descriptor::Descriptor;
pub use docker_config::DockerConfigError;
pub use docker_login::LoginPlace;
pub use error::{Error, ErrorKind, RequestError, Schema1Found};
pub use hosts::{HostsError, HostsProblem};
pub use image::{DocumentStore, Image, ImageConfig, NoStore, chain_id, parse_config, resolve_image, resolve_image_at};
pub use limits::Limits;
pub use login::LoginOutcome;
pub use manifest::{
    DocumentError, DocumentKind, ImageManifest, choose_platform, document_kind, document_media_type, parse_index, parse_manifest,
};
pub use media_type::{is_index, is_manifest};
pub use platform::{Platform, PlatformError};
pub use reference::{LayoutReference, Reference, ReferenceError, ReferenceProblem, RegistryReference, parse_registry_name};
pub use schema1::{Schema1Error, Schema1Layer, Schema1Manifest, parse_schema1, schema1_payload};
pub use schema1_convert::{ConvertedImage, Schema1Blob};
pub use secret::Secret;
pub use source::{Blob, ByteStream, Source};
pub use tags::TagsProblem;
