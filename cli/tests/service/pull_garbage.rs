//! containerd's garbage collector takes nothing that a pull needs or has made, and everything when its image is gone.

use crate::containerd::Snapshotter;
use crate::door::Door;
use crate::images::image;
use crate::process::{succeed, wait_until};
use crate::pull_bench::{NAMESPACE, PullBench, everywhere};
use crate::scenes;

#[test]
fn an_image_stays_until_it_is_removed() {
    let tiny = image("tiny", "gzip");
    everywhere(|bench| {
        bench.pull(&[&tiny.reference]);
        bench.snap().assert_tidy();
        bench.containerd.drop_leases(NAMESPACE);
        assert_eq!(bench.says(&tiny.reference), tiny.expected_output());
        bench.remove(&tiny.reference);
        bench.assert_empty();
    });
}

/// What is there before an image is, and what is there already of another image that goes away meanwhile.
#[test]
fn a_collection_in_the_middle_of_a_pull_harms_nothing() {
    let repository = scenes::several_tags("pull-collected");
    let door = Door::to(&repository.registry);
    let repository = repository.at(&door.address);
    let first = scenes::saying("first", &repository).file("srv/first", "1").publish(Some("first"));
    let second = scenes::saying("first", &repository).file("srv/second", "2").publish(Some("second"));
    everywhere(|bench| {
        let top = second.layers.last().unwrap();
        for keep_first in [true, false] {
            // Pulled on top of what the other has, or of nothing.
            if keep_first {
                bench.pull(&[&first.reference]);
            }
            door.hold(&format!("/blobs/{top}"));
            std::thread::scope(|scope| {
                let pulling = scope.spawn(|| bench.snap().run(&[&second.reference]));
                door.wait_holding();
                let below = second.layers.len() - 1;
                wait_until("the layers below are there", || bench.containerd.snapshots(NAMESPACE).len() >= below);
                let collecting = scope.spawn(|| {
                    if keep_first {
                        bench.remove(&first.reference);
                    }
                    collect(bench);
                });
                if bench.containerd.snapshotter == Snapshotter::Overlayfs {
                    collecting.join().unwrap();
                } else {
                    // containerd collects no snapshots while a snapshotter prepares one: this one does not before the layer is there.
                    wait_until("the other image is removed", || !bench.images().iter().any(|(name, _)| *name == first.reference));
                }
                door.open();
                pulling.join().unwrap().well();
            });
            bench.containerd.drop_leases(NAMESPACE);
            assert_eq!(bench.says(&second.reference), "first");
            bench.remove(&second.reference);
            bench.assert_empty();
        }
    });
}

/// By all that people use for it.
fn collect(bench: &PullBench<'_>) {
    bench.containerd.collect_garbage(NAMESPACE);
    // Layers' blobs are no longer kept by their image, but those that are being unpacked.
    succeed(bench.containerd.ctr(NAMESPACE).args(["content", "prune", "references"]));
    bench.containerd.collect_garbage(NAMESPACE);
}
