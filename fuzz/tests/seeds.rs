//! Every seed through its target.

use std::fs;
use std::path::Path;

#[test]
fn every_target_takes_its_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/fuzz");
    for (name, target) in snap_fuzz::TARGETS {
        let seeds: Vec<_> = fs::read_dir(folder.join(name)).unwrap_or_else(|error| panic!("seeds of {name}: {error}")).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            target(&fs::read(seed.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn the_seeds_are_those_that_are_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/fuzz");
    for (target, name, bytes) in snap_fuzz::seeds::seeds() {
        let path = folder.join(target).join(name);
        let hint = "hint: `cargo run --bin seeds` in the folder fuzz writes them";
        assert!(fs::read(&path).is_ok_and(|found| found == bytes), "{} is missing or old\n{hint}", path.display());
    }
}
