//! The whole service against a reference model: generated calls, restarts among them, must be answered as a simple map would.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use snap_snapshotter::api::snapshots::Kind;
use snap_snapshotter::{DECLINED_LABEL, LAYER_DIGEST_LABEL, OPENED_BY_LABEL};
use tonic::{Code, Status};

use crate::harness::{Labels, REF, Rig, UNKNOWN_KIND, cri_labels, digest, labels, opened_by};

/// Names come from a small set, so that they meet: three plain ones, and the chain IDs of layers.
const NAMES: u8 = 6;
/// Layer 3 cannot be served.
const SERVED: u8 = 2;

#[derive(Clone, Debug)]
enum Call {
    Prepare { key: u8, parent: u8 },
    Ask { key: u8, parent: u8, layer: u8 },
    View { key: u8, parent: u8 },
    Commit { key: u8, name: u8 },
    Remove { key: u8 },
    Mounts { key: u8 },
    Update { key: u8, path: u8, value: u8 },
    Cleanup,
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let name = 0..NAMES;
    // The last one stands for no parent.
    let parent = 0..=NAMES;
    prop_oneof![
        3 => (name.clone(), parent.clone()).prop_map(|(key, parent)| Call::Prepare { key, parent }),
        3 => (name.clone(), parent.clone(), 1..=SERVED + 1).prop_map(|(key, parent, layer)| Call::Ask { key, parent, layer }),
        2 => (name.clone(), parent).prop_map(|(key, parent)| Call::View { key, parent }),
        4 => (name.clone(), name.clone()).prop_map(|(key, name)| Call::Commit { key, name }),
        3 => name.clone().prop_map(|key| Call::Remove { key }),
        2 => name.clone().prop_map(|key| Call::Mounts { key }),
        1 => (name, 0..4u8, 0..3u8).prop_map(|(key, path, value)| Call::Update { key, path, value }),
        1 => Just(Call::Cleanup),
        1 => Just(Call::Restart),
    ]
}

fn name_of(number: u8) -> String {
    match number {
        0 => "ns/1/a".to_owned(),
        1 => "b".to_owned(),
        2 => "../c".to_owned(),
        NAMES => String::new(),
        layer => digest(layer - 2).to_string(),
    }
}

#[derive(Clone, PartialEq, Debug)]
struct Entry {
    kind: Kind,
    parent: String,
    labels: Labels,
    id: u64,
    served: bool,
}

#[derive(Default)]
struct Model {
    snapshots: BTreeMap<String, Entry>,
    last_id: u64,
}

impl Model {
    fn check_new(&self, key: &str, parent: &str) -> Result<(), Code> {
        let parent = match parent {
            "" => None,
            name => Some(self.snapshots.get(name).ok_or(Code::NotFound)?),
        };
        if self.snapshots.contains_key(key) {
            return Err(Code::AlreadyExists);
        }
        if parent.is_some_and(|parent| parent.kind != Kind::Committed) { Err(Code::InvalidArgument) } else { Ok(()) }
    }

    fn insert(&mut self, name: &str, kind: Kind, parent: &str, labels: Labels, served: bool) {
        self.last_id += 1;
        self.snapshots.insert(name.to_owned(), Entry { kind, parent: parent.to_owned(), labels, id: self.last_id, served });
    }

    fn create(&mut self, kind: Kind, key: &str, parent: &str, labels: Labels) -> Result<(), Code> {
        self.check_new(key, parent)?;
        self.insert(key, kind, parent, labels, false);
        Ok(())
    }

    fn ask(&mut self, key: &str, parent: &str, layer: u8) -> Result<(), Code> {
        self.check_new(key, parent)?;
        let (mut labels, target) = (cri_labels(layer), digest(layer).to_string());
        let mut why = UNKNOWN_KIND.to_owned();
        if layer <= SERVED {
            let opened_by = opened_by(digest(layer)).1.to_owned();
            let parent_id = self.snapshots.get(parent).map_or(0, |entry| entry.id);
            for name in [target.clone(), format!("{target}/{parent_id}")] {
                match self.snapshots.get(&name) {
                    None => {
                        labels.insert(OPENED_BY_LABEL.to_owned(), opened_by);
                        labels.insert(LAYER_DIGEST_LABEL.to_owned(), digest(layer).to_string());
                        self.insert(&name, Kind::Committed, parent, labels, true);
                        return Err(Code::AlreadyExists);
                    }
                    Some(there) if there.kind == Kind::Committed && there.parent == parent && there.labels.get(REF) == Some(&target) => {
                        return Err(Code::AlreadyExists);
                    }
                    Some(_) => {}
                }
            }
            why = format!("the name {target:?} is taken by another snapshot");
        }
        labels.insert(DECLINED_LABEL.to_owned(), why);
        self.insert(key, Kind::Active, parent, labels, false);
        Ok(())
    }

    fn commit(&mut self, key: &str, name: &str) -> Result<(), Code> {
        let mut entry = self.snapshots.get(key).ok_or(Code::NotFound)?.clone();
        if self.snapshots.contains_key(name) {
            return Err(Code::AlreadyExists);
        }
        if entry.kind != Kind::Active {
            return Err(Code::FailedPrecondition);
        }
        entry.kind = Kind::Committed;
        entry.labels = labels(&[("committed", key)]);
        self.snapshots.remove(key);
        self.snapshots.insert(name.to_owned(), entry);
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), Code> {
        if !self.snapshots.contains_key(key) {
            return Err(Code::NotFound);
        }
        if self.snapshots.values().any(|entry| entry.parent == key) {
            return Err(Code::FailedPrecondition);
        }
        self.snapshots.remove(key);
        Ok(())
    }

    fn mounts(&self, key: &str) -> Result<(), Code> {
        match self.snapshots.get(key).ok_or(Code::NotFound)?.kind {
            Kind::Committed => Err(Code::FailedPrecondition),
            _ => Ok(()),
        }
    }

    fn update(&mut self, key: &str, path: u8, value: u8) -> Result<(), Code> {
        let entry = self.snapshots.get_mut(key).ok_or(Code::NotFound)?;
        let mut given = update_labels(value);
        // What the snapshotter says itself stays.
        given.extend(
            entry
                .labels
                .clone()
                .into_iter()
                .filter(|(key, _)| [OPENED_BY_LABEL, LAYER_DIGEST_LABEL, DECLINED_LABEL].contains(&key.as_str())),
        );
        match path {
            0 => entry.labels = given,
            1 => {
                entry.labels.remove("a");
                entry.labels.extend(given.get("a").map(|value| ("a".to_owned(), value.clone())));
            }
            2 => entry.labels = given,
            _ => return Err(Code::InvalidArgument),
        }
        Ok(())
    }

    /// The directories that are left after a cleanup.
    fn directories(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.snapshots.values().filter(|entry| !entry.served).map(|entry| entry.id.to_string()).collect();
        ids.sort();
        ids
    }
}

const UPDATE_PATHS: [&[&str]; 4] = [&[], &["labels.a"], &["labels"], &["parent"]];

fn update_labels(value: u8) -> Labels {
    match value {
        0 => Labels::new(),
        value => labels(&[("a", &value.to_string()), ("b", "1")]),
    }
}

async fn run(calls: Vec<Call>) -> Result<(), TestCaseError> {
    let mut rig = Rig::start().await;
    let mut model = Model::default();
    for layer in 1..=SERVED {
        rig.layers.add(layer);
    }
    for call in calls {
        let (answer, expected): (Result<(), Status>, Result<(), Code>) = match call.clone() {
            Call::Prepare { key, parent } => {
                let (key, parent) = (name_of(key), name_of(parent));
                (
                    rig.prepare(&key, &parent, labels(&[("p", "1")])).await.map(drop),
                    model.create(Kind::Active, &key, &parent, labels(&[("p", "1")])),
                )
            }
            Call::Ask { key, parent, layer } => {
                let (key, parent) = (name_of(key), name_of(parent));
                (rig.prepare(&key, &parent, cri_labels(layer)).await.map(drop), model.ask(&key, &parent, layer))
            }
            Call::View { key, parent } => {
                let (key, parent) = (name_of(key), name_of(parent));
                (rig.view(&key, &parent).await.map(drop), model.create(Kind::View, &key, &parent, Labels::new()))
            }
            Call::Commit { key, name } => {
                let (key, name) = (name_of(key), name_of(name));
                (rig.commit(&key, &name, labels(&[("committed", &key)])).await, model.commit(&key, &name))
            }
            Call::Remove { key } => (rig.remove(&name_of(key)).await, model.remove(&name_of(key))),
            Call::Mounts { key } => (rig.mounts(&name_of(key)).await.map(drop), model.mounts(&name_of(key))),
            Call::Update { key, path, value } => {
                let name = name_of(key);
                let answer = rig.update(&name, update_labels(value), UPDATE_PATHS[usize::from(path)]).await.map(drop);
                (answer, model.update(&name, path, value))
            }
            Call::Cleanup => {
                rig.cleanup().await.unwrap();
                prop_assert_eq!(rig.directories(), model.directories());
                (Ok(()), Ok(()))
            }
            Call::Restart => {
                rig = rig.restart().await;
                prop_assert_eq!(rig.directories(), model.directories());
                (Ok(()), Ok(()))
            }
        };
        prop_assert_eq!(answer.map_err(|status| status.code()), expected, "{:?}", call);
        let listed = rig.list(&[]).await.unwrap();
        let found: Vec<_> = listed.iter().map(|info| (&info.name, info.kind(), &info.parent, &info.labels)).collect();
        let wanted: Vec<_> = model.snapshots.iter().map(|(name, entry)| (name, entry.kind, &entry.parent, &entry.labels)).collect();
        prop_assert_eq!(found, wanted, "{:?}", call);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_service_answers_as_the_model_does(calls in vec(call(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(calls))?;
    }
}
