//! Prepare: a layer that is served instead of unpacked where that is possible, an ordinary active snapshot elsewhere.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use snap_fs::WantedLayer;

use crate::blocking::blocking;
use crate::error::Error;
use crate::labels::{SNAPSHOT_REF, say_declined, say_served, wanted_layer};
use crate::layers::OpenError;
use crate::mounts::Mount;
use crate::record::Kind;
use crate::records::{NewRecord, RemoteRecord};
use crate::refusals::Refusal;
use crate::snapshotter::{Prepared, Request, Snapshotter, checked};

/// Whether a layer is served.
enum Offer {
    Served,
    Refused(String),
}

impl Snapshotter {
    /// Makes an active snapshot, unless the labels name a layer that can be served.
    pub(crate) async fn prepare(&self, request: Request) -> Result<Prepared, Error> {
        let mut request = checked(request)?;
        let Some(target) = request.labels.get(SNAPSHOT_REF).cloned() else {
            return self.prepare_ordinary(request).await.map(Prepared::Active);
        };
        // Text, as the tools that count such lines expect.
        match self.offer(&target, &request).await? {
            Offer::Served => {
                tracing::info!("remote-snapshot-prepared" = "true", chain_id = target, key = request.key);
                Ok(Prepared::LayerIsHere)
            }
            Offer::Refused(reason) => {
                tracing::info!("remote-snapshot-prepared" = "false", chain_id = target, key = request.key, reason);
                let reference = wanted_layer(&target, &request.labels).ok().map(|wanted| wanted.reference);
                let at_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                say_declined(&mut request.labels, &reason);
                self.refusals.add(Refusal { chain_id: target, reference, reason, at_unix_s });
                self.prepare_ordinary(request).await.map(Prepared::Active)
            }
        }
    }

    async fn prepare_ordinary(&self, request: Request) -> Result<Vec<Mount>, Error> {
        self.create(Kind::Active, request).await
    }

    /// Makes sure that the layer `target` is served and has its record, or says why not.
    async fn offer(&self, target: &str, request: &Request) -> Result<Offer, Error> {
        // The second of two clients that want the same layer finds it there.
        let _turn = self.turns.wait(target).await;
        if self.is_recorded(target, request).await? {
            return Ok(Offer::Served);
        }
        let wanted = match wanted_layer(target, &request.labels) {
            Ok(wanted) => wanted,
            Err(reason) => return Ok(Offer::Refused(reason)),
        };
        self.open(target, request, &wanted).await
    }

    /// Whether the layer has its record. Also finds out what would make a new one fail, before any work is done for it.
    async fn is_recorded(&self, target: &str, request: &Request) -> Result<bool, Error> {
        let (records, target) = (self.records.clone(), target.to_owned());
        let (key, parent) = (request.key.clone(), request.parent.clone());
        blocking(move || {
            records.check_new(&key, &parent)?;
            records.has_remote(&target, &parent, SNAPSHOT_REF)
        })
        .await
    }

    async fn open(&self, target: &str, request: &Request, wanted: &WantedLayer) -> Result<Offer, Error> {
        // Where it is done again, the first time has done the work.
        let opened_by = OnceLock::new();
        let open = || async {
            let opened = self.layers.open(wanted).await?;
            opened_by.get_or_init(|| opened.opened_by);
            Ok(opened)
        };
        let (opened, in_use) = match self.retention.undisturbed(open).await {
            Ok(opened) => opened,
            Err(OpenError::Unservable { reason }) => return Ok(Offer::Refused(reason)),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    chain_id = target,
                    image = wanted.reference,
                    "a layer cannot be had"
                );
                return Err(error.into());
            }
        };
        let mut labels = request.labels.clone();
        say_served(&mut labels, &opened.layer.digest, opened_by.into_inner().unwrap_or(opened.opened_by));
        let records = self.records.clone();
        let new = NewRecord {
            id: records.allocate_id(),
            name: target.to_owned(),
            kind: Kind::Committed,
            parent: request.parent.clone(),
            labels,
            remote: Some(opened.layer),
        };
        let made = blocking(move || {
            let made = records.create_remote(new, SNAPSHOT_REF);
            // Held to here: from now on the record keeps the layer.
            drop(in_use);
            made
        });
        match made.await {
            Ok(RemoteRecord::Created | RemoteRecord::Found) => Ok(Offer::Served),
            // Both names are somebody else's, who did not get them from here. containerd can still unpack.
            Err(Error::AlreadyExists { name }) => Ok(Offer::Refused(format!("the name {name:?} is taken by another snapshot"))),
            Err(error) => Err(error),
        }
    }
}
