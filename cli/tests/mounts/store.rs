//! `snap inspect` and `snap cache`: what is said of an image and of the store before, during and after a mount.

use std::process::Output;

use serde_json::Value;

use crate::fixture::{Fixture, failed_with, succeeded};

fn cache(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.snap().arg("cache").args(arguments).arg("--cache-dir").arg(fixture.path("cache")).output().unwrap()
}

fn json(output: &Output) -> Value {
    succeeded(output);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn inspect(fixture: &Fixture, further: &[&str]) -> Output {
    fixture.snap().arg("inspect").args(further).arg(fixture.image()).arg("--cache-dir").arg(fixture.path("cache")).output().unwrap()
}

#[test]
fn a_plain_layer_is_lazy_once_it_has_been_streamed() {
    let fixture = Fixture::new();
    let before = json(&inspect(&fixture, &["--json"]));
    assert_eq!((&before["lazy"], &before["layers"][0]["format"]), (&false.into(), &"tar".into()));
    let text = String::from_utf8(inspect(&fixture, &[]).stdout).unwrap();
    assert!(text.contains("lazy:      0 of 1 layers") && text.contains("no, because it has no table of contents"), "{text}");

    let mounted = fixture.mount(&[]);
    succeeded(&fixture.umount(&[]));
    let after = json(&inspect(&fixture, &["--json"]));
    assert_eq!((&after["lazy"], &after["manifest"]), (&true.into(), &mounted["manifest"]));
    assert_eq!(after["layers"][0]["digest"], fixture.layer.to_string());
}

#[test]
fn an_image_that_is_not_there_cannot_be_inspected() {
    let fixture = Fixture::new();
    failed_with(&fixture.snap().args(["inspect", "oci:/nowhere/at/all"]).output().unwrap(), &["cannot resolve oci:/nowhere/at/all"]);
}

#[test]
fn layers_in_use_are_kept_and_others_removed() {
    let fixture = Fixture::new();
    fixture.mount(&["--wait"]);
    let listed = json(&cache(&fixture, &["ls", "--json"]));
    let [layer] = &listed["layers"].as_array().unwrap()[..] else { panic!("one layer") };
    assert_eq!((&layer["digest"], &layer["in_use"]), (&fixture.layer.to_string().into(), &true.into()));
    assert!(layer["data_bytes_on_disk"].as_u64().unwrap() >= 1 << 20);

    let prefix = fixture.layer.short();
    failed_with(&cache(&fixture, &["rm", &prefix]), &["cannot remove layer", "is in use", "hint: unmount"]);
    let pruned = cache(&fixture, &["prune", "--keep", "0", "--json"]);
    assert_eq!(json(&pruned)["layers_evicted"], 0);
    assert!(String::from_utf8_lossy(&pruned.stderr).contains("the rest is in use"));

    succeeded(&fixture.umount(&[]));
    failed_with(&cache(&fixture, &["rm", "0000", "ffff"]), &["no layer in the cache", "hint: snap cache ls"]);
    let removed = json(&cache(&fixture, &["rm", &prefix, "--json"]));
    assert_eq!(removed["removed"][0], fixture.layer.to_string());
    assert!(removed["freed_bytes"].as_u64().unwrap() >= 1 << 20);
    assert!(json(&cache(&fixture, &["ls", "--json"]))["layers"].as_array().unwrap().is_empty());
}

#[test]
fn pruning_evicts_down_to_what_is_kept() {
    let fixture = Fixture::new();
    fixture.mount(&["--wait"]);
    succeeded(&fixture.umount(&[]));
    assert_eq!(json(&cache(&fixture, &["prune", "--json"]))["freed_bytes"], 0, "without --keep no layer goes");
    let pruned = json(&cache(&fixture, &["prune", "--keep", "512K", "--json"]));
    assert_eq!((&pruned["data_evicted"], &pruned["layers_evicted"]), (&1.into(), &0.into()), "the data goes before the index");
    let text = String::from_utf8(cache(&fixture, &["ls"]).stdout).unwrap();
    assert!(text.contains("index "), "{text}");
    let mounted = fixture.mount(&["--wait"]);
    assert_eq!(mounted["complete"], true, "what was evicted is fetched again");
    succeeded(&fixture.umount(&[]));
}
