//! The tags of a repository: a list in pages, each of which says where the next one is.

use std::collections::HashSet;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::LINK;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::cause::Cause;
use crate::chain::Chain;
use crate::error::{Error, ErrorKind};
use crate::host::{Ask, Host};
use crate::limits::{TAGS_LIST_MAX_BYTES, TAGS_MAX, TAGS_PAGE_MAX_BYTES, TAGS_PAGES_MAX};
use crate::link::next_link;
use crate::registry::Repository;
use crate::response::limited_body;

/// What is wrong with a list of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagsProblem {
    /// A page that is no JSON of the right shape.
    #[error("has a page that is none")]
    Json,
    /// A page that is larger than this crate reads.
    #[error("has a page of more than {TAGS_PAGE_MAX_BYTES} bytes")]
    PageTooLarge,
    /// Pages that together are larger than this crate reads.
    #[error("has more than {TAGS_LIST_MAX_BYTES} bytes")]
    TooLarge,
    /// More pages than this crate reads.
    #[error("has more than {TAGS_PAGES_MAX} pages")]
    TooManyPages,
    /// More tags than this crate reads.
    #[error("has more than {TAGS_MAX} tags")]
    TooManyTags,
    /// A next page that is not where this one came from.
    #[error("goes on at another host")]
    OtherHost,
}

impl TagsProblem {
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::PageTooLarge | Self::TooLarge | Self::TooManyPages | Self::TooManyTags => ErrorKind::TooLarge,
            Self::Json | Self::OtherHost => ErrorKind::Protocol,
        }
    }
}

/// One page, as the distribution specification has it. A repository without tags has `null` at some registries.
#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

/// What one host has told so far. Another host counts its pages in its own way, so it begins anew.
struct Listing {
    host_index: usize,
    next: Url,
    pages: usize,
    bytes: u64,
    tags: Vec<String>,
    known: HashSet<String>,
}

/// All tags of `repository` in the registry's order, each once.
pub(crate) async fn list(repository: &Repository) -> Result<Vec<String>, Error> {
    let path = repository.tags_path();
    let mut chain = repository.resolve_chain(&path)?;
    let after = repository.limits().listing_deadline;
    match timeout(after, list_along(repository, &path, &mut chain)).await {
        Ok(listed) => listed,
        Err(_) => Err(chain.error(Cause::Timeout { awaited: "end of the list of tags", after })),
    }
}

async fn list_along(repository: &Repository, path: &str, chain: &mut Chain) -> Result<Vec<String>, Error> {
    let (index, host) = chain.host();
    let mut listing = Listing::new(index, host.url(path));
    loop {
        let (index, host) = chain.host();
        let host = host.clone();
        if listing.host_index != index {
            listing = Listing::new(index, host.url(path));
        }
        match listing.read_page(repository, &host).await {
            Ok((bytes, true)) => chain.progressed(bytes),
            Ok((_, false)) => return Ok(listing.tags),
            Err(cause) => chain.failed(cause).await?,
        }
    }
}

impl Listing {
    fn new(host_index: usize, next: Url) -> Self {
        Self { host_index, next, pages: 0, bytes: 0, tags: Vec::new(), known: HashSet::new() }
    }

    /// Reads the next page: its size in bytes, and whether there is another one.
    async fn read_page(&mut self, repository: &Repository, host: &Arc<Host>) -> Result<(u64, bool), Cause> {
        if self.pages >= TAGS_PAGES_MAX {
            return Err(TagsProblem::TooManyPages.into());
        }
        let ask = Ask {
            method: Method::GET,
            url: self.next.clone(),
            repository: repository.name(),
            accept: Some("application/json"),
            range: None,
            target: None,
        };
        let answer = host.send(&ask).await?;
        let links = answer.response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let next = next_link(links).map(|link| self.next_url(link, host)).transpose()?;
        let left_bytes = TAGS_LIST_MAX_BYTES - self.bytes;
        let body =
            limited_body(answer.response, TAGS_PAGE_MAX_BYTES.min(left_bytes), repository.limits()).await.map_err(|cause| match cause {
                Cause::SizeMismatch { .. } if left_bytes < TAGS_PAGE_MAX_BYTES => TagsProblem::TooLarge.into(),
                Cause::SizeMismatch { .. } => TagsProblem::PageTooLarge.into(),
                cause => cause,
            })?;
        let page: Page = serde_json::from_slice(&body).map_err(|_| TagsProblem::Json)?;
        for tag in page.tags.unwrap_or_default() {
            if self.known.contains(&tag) {
                continue;
            }
            if self.tags.len() >= TAGS_MAX {
                return Err(TagsProblem::TooManyTags.into());
            }
            self.known.insert(tag.clone());
            self.tags.push(tag);
        }
        self.pages += 1;
        self.bytes += body.len() as u64;
        let has_more = next.is_some();
        if let Some(next) = next {
            self.next = next;
        }
        Ok((body.len() as u64, has_more))
    }

    /// Where `link`, absolute or relative to this page, leads: never away from the host that is asked, which may have been shown
    /// credentials.
    fn next_url(&self, link: &str, host: &Host) -> Result<Url, Cause> {
        let mut next = self.next.join(link).map_err(|_| TagsProblem::OtherHost)?;
        if next.origin() != self.next.origin() {
            return Err(TagsProblem::OtherHost.into());
        }
        next.set_fragment(None);
        // An origin has neither, and what is asked has its own authorization. They can always be taken from an http URL.
        let _ = next.set_username("");
        let _ = next.set_password(None);
        host.name_registry(&mut next);
        Ok(next)
    }
}
