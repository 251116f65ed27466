//! Random histories of a cache against a model in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use fixture::{Chunks, begin, build_index, build_whole, chunk_bytes, is_right, layer, layer_dir, leftovers, open_data, open_in};
use proptest::prelude::*;
use snap_cache::{BootId, Cache, ChunkLayout as _, ChunkState, Error, LayerData, Lease};
use snap_digest::Digest;

const LAYERS: usize = 3;
const COUNT: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Close(usize),
    BuildWhole(usize),
    BuildIndex(usize),
    DropBuild(usize),
    /// What a build killed half-way leaves.
    KilledBuild(usize),
    Store(usize, u32),
    MarkVerified(usize, u32),
    MarkAbsent(usize, u32),
    Discard(usize),
    Restart,
    Reboot,
    /// Someone cuts the data file off at this many thousandths of its length.
    Cut(usize, u64),
    DamageMap(usize),
    LoseData(usize),
    PruneAll,
    PruneLeftovers,
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (layer, chunk) = (0..LAYERS, 0..COUNT);
    prop_oneof![
        4 => layer.clone().prop_map(Step::Open),
        2 => layer.clone().prop_map(Step::Close),
        3 => layer.clone().prop_map(Step::BuildWhole),
        3 => layer.clone().prop_map(Step::BuildIndex),
        1 => layer.clone().prop_map(Step::DropBuild),
        1 => layer.clone().prop_map(Step::KilledBuild),
        8 => (layer.clone(), chunk.clone()).prop_map(|(layer, chunk)| Step::Store(layer, chunk)),
        3 => (layer.clone(), chunk.clone()).prop_map(|(layer, chunk)| Step::MarkVerified(layer, chunk)),
        2 => (layer.clone(), chunk).prop_map(|(layer, chunk)| Step::MarkAbsent(layer, chunk)),
        1 => layer.clone().prop_map(Step::Discard),
        2 => Just(Step::Restart),
        2 => Just(Step::Reboot),
        1 => (layer.clone(), 0..1000u64).prop_map(|(layer, cut)| Step::Cut(layer, cut)),
        1 => layer.clone().prop_map(Step::DamageMap),
        1 => layer.clone().prop_map(Step::LoseData),
        1 => Just(Step::PruneAll),
        1 => Just(Step::PruneLeftovers),
        1 => layer.prop_map(Step::Remove),
    ]
}

/// What must be known of a layer that has a directory.
#[derive(Debug, Clone, Default)]
struct Modelled {
    has_index: bool,
    states: [Option<ChunkState>; COUNT as usize],
}

/// A layer in use; its data is open if it has an index.
struct InUse {
    lease: Lease,
    data: Option<LayerData>,
}

struct History {
    dir: tempfile::TempDir,
    boot: u8,
    cache: Cache,
    used: BTreeMap<usize, InUse>,
    model: BTreeMap<usize, Modelled>,
}

impl History {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = open_in(dir.path(), BootId::from_bytes([0; 16]));
        Self { dir, boot: 0, cache, used: BTreeMap::new(), model: BTreeMap::new() }
    }

    fn name(layer_number: usize) -> Digest {
        layer(&layer_number.to_string())
    }

    fn path(&self, number: usize, file: &str) -> PathBuf {
        layer_dir(self.dir.path(), &Self::name(number)).join(file)
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Open(number) => self.open(number),
            Step::Close(number) => drop(self.used.remove(&number)),
            Step::BuildWhole(number) => self.build(number, Some(ChunkState::Verified), |lease| build_whole(lease, COUNT)),
            Step::BuildIndex(number) => self.build(number, None, build_index),
            Step::DropBuild(number) => self.drop_build(number),
            Step::KilledBuild(number) => self.killed_build(number),
            Step::Store(number, chunk) => self.set(number, chunk, |data, state| {
                data.store(chunk, &chunk_bytes(&data.digest(), chunk)).unwrap();
                *state = Some(ChunkState::Verified);
            }),
            Step::MarkVerified(number, chunk) => self.set(number, chunk, |data, state| {
                data.mark_verified(chunk);
                *state = state.map(|_| ChunkState::Verified);
            }),
            Step::MarkAbsent(number, chunk) => self.set(number, chunk, |data, state| {
                data.mark_absent(chunk);
                *state = None;
            }),
            Step::Discard(number) => self.discard(number),
            Step::Restart => self.restart(),
            Step::Reboot => self.reboot(),
            Step::Cut(number, thousandths) => self.cut(number, thousandths),
            Step::DamageMap(number) => self.lose(number, |history| {
                fs::write(history.path(number, "present"), b"?").unwrap();
            }),
            Step::LoseData(number) => self.lose(number, |history| fs::remove_file(history.path(number, "data")).unwrap()),
            Step::PruneAll => {
                self.cache.prune(0).unwrap();
                self.model.retain(|number, _| self.used.contains_key(number));
            }
            Step::PruneLeftovers => {
                self.cache.enforce_budget().unwrap();
                self.model.retain(|number, modelled| modelled.has_index || self.used.contains_key(number));
            }
            Step::Remove(number) => self.remove(number),
        }
    }

    fn open(&mut self, number: usize) {
        if !self.used.contains_key(&number) {
            let lease = self.cache.lease(&Self::name(number)).unwrap();
            let has_index = self.model.entry(number).or_default().has_index;
            assert_eq!(lease.read_index().unwrap().is_some(), has_index);
            let data = has_index.then(|| open_data(&lease, COUNT));
            self.used.insert(number, InUse { lease, data });
        }
    }

    /// Builds a layer that is in use and has no index.
    fn build(&mut self, number: usize, state: Option<ChunkState>, build: impl Fn(&Lease)) {
        if let Some(used) = self.used.get_mut(&number).filter(|used| used.data.is_none()) {
            build(&used.lease);
            used.data = Some(open_data(&used.lease, COUNT));
            self.model.insert(number, Modelled { has_index: true, states: [state; COUNT as usize] });
        }
    }

    fn drop_build(&mut self, number: usize) {
        if let Some(used) = self.used.get(&number).filter(|used| used.data.is_none()) {
            begin(&used.lease).data().write_all_at(0, b"half").unwrap();
        }
    }

    fn killed_build(&mut self, number: usize) {
        if self.model.get(&number).is_some_and(|modelled| !modelled.has_index) {
            fs::write(self.path(number, "data"), [0xbb; 3000]).unwrap();
            fs::write(self.path(number, "present"), [2; 32 + COUNT as usize]).unwrap();
        }
    }

    fn set(&mut self, number: usize, chunk: u32, set: impl Fn(&LayerData, &mut Option<ChunkState>)) {
        if let Some(data) = self.used.get(&number).and_then(|used| used.data.as_ref()) {
            set(data, &mut self.model.get_mut(&number).unwrap().states[chunk as usize]);
        }
    }

    fn discard(&mut self, number: usize) {
        if let Some(used) = self.used.get_mut(&number) {
            used.lease.discard_index().unwrap();
            used.data = None;
            self.model.insert(number, Modelled::default());
        }
    }

    fn restart(&mut self) {
        self.used.clear();
        self.cache = open_in(self.dir.path(), BootId::from_bytes([self.boot; 16]));
    }

    fn reboot(&mut self) {
        self.boot = self.boot.wrapping_add(1);
        self.restart();
        for state in self.model.values_mut().flat_map(|modelled| &mut modelled.states) {
            *state = state.map(|_| ChunkState::Stored);
        }
    }

    /// Damages a layer that is not in use but has data.
    fn lose(&mut self, number: usize, damage: impl Fn(&Self)) {
        if !self.used.contains_key(&number) && self.path(number, "data").exists() {
            damage(self);
            self.model.get_mut(&number).unwrap().states = Default::default();
        }
    }

    fn cut(&mut self, number: usize, thousandths: u64) {
        let path = self.path(number, "data");
        if !self.used.contains_key(&number) && path.exists() {
            let file = File::options().write(true).open(path).unwrap();
            let left_bytes = file.metadata().unwrap().len() * thousandths / 1000;
            file.set_len(left_bytes).unwrap();
            let states = &mut self.model.get_mut(&number).unwrap().states;
            for (chunk, state) in (0..COUNT).zip(states) {
                *state = state.filter(|_| Chunks(COUNT).range(chunk).end <= left_bytes);
            }
        }
    }

    fn remove(&mut self, number: usize) {
        let removed = self.cache.remove(&Self::name(number));
        if self.used.contains_key(&number) {
            assert!(matches!(removed, Err(Error::InUse { .. })), "{removed:?}");
        } else if self.model.remove(&number).is_none() {
            assert!(matches!(removed, Err(Error::NotCached { .. })), "{removed:?}");
        } else {
            removed.unwrap();
        }
    }

    /// Compares everything that can be seen.
    fn check(&self) {
        let mut listed: Vec<(Digest, bool, bool)> =
            self.cache.layers().unwrap().iter().map(|found| (found.digest, found.has_index, found.in_use)).collect();
        let modelled = self.model.iter().map(|(number, m)| (Self::name(*number), m.has_index, self.used.contains_key(number)));
        let mut modelled: Vec<_> = modelled.collect();
        listed.sort();
        modelled.sort();
        assert_eq!(listed, modelled);
        assert_eq!(leftovers(self.dir.path()), 0);
        for (number, used) in &self.used {
            if let Some(data) = &used.data {
                check_data(data, &self.model[number].states);
            }
        }
    }
}

fn check_data(data: &LayerData, states: &[Option<ChunkState>]) {
    let found: Vec<ChunkState> = (0..COUNT).map(|chunk| data.state(chunk)).collect();
    let expected: Vec<ChunkState> = states.iter().map(|state| state.unwrap_or(ChunkState::Absent)).collect();
    assert_eq!(found, expected);
    let here: Vec<u32> = (0..COUNT).filter(|chunk| expected[*chunk as usize] != ChunkState::Absent).collect();
    assert!(here.iter().all(|chunk| is_right(data, *chunk)));
    assert_eq!(data.present_bytes(), here.iter().map(|chunk| chunk_bytes(&data.digest(), *chunk).len() as u64).sum::<u64>());
    assert!(data.missing().all(|chunk| !here.contains(&chunk)));
    assert_eq!(data.missing().count() + here.len(), COUNT as usize);
    assert_eq!(data.is_complete(), here.len() == COUNT as usize);
    assert_eq!(data.all_verified(), expected.iter().all(|state| *state == ChunkState::Verified));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_history_matches_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut history = History::new();
        for step in &steps {
            history.apply(step);
            history.check();
        }
        // At the end everything is opened once more, as a new process would.
        history.restart();
        for number in 0..LAYERS {
            history.open(number);
        }
        history.check();
    }
}
