//! What a reference may be, and what is pulled for it.

use crate::door::Door;
use crate::images::image;
use crate::pull_bench::{NAMESPACE, PullBench, each_containerd, everywhere, id, newer, up_to_date};
use crate::repository::Repository;
use crate::scenes::{self, NESTED_TAG, PLATFORMS_TAG, TAGS};

#[test]
fn a_name_alone_means_latest() {
    let repository = Repository::new(image("tiny", "gzip").registry(), "scenes/pull-latest");
    let latest = scenes::saying("latest", &repository).publish(Some("latest"));
    let none = scenes::several_tags("pull-no-latest");
    each_containerd(|bench| {
        let said = bench.snap().run(&[&repository.reference()]).well();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["Using default tag: latest", "latest: Pulling from scenes/pull-latest"]);
        let mut end = newer(latest.digest(), &latest.reference).to_vec();
        end.push(latest.reference.clone());
        assert_eq!(lines[lines.len() - 3..], end);
        assert_eq!(bench.images(), [(latest.reference.clone(), latest.digest().to_owned())].into());
        assert_eq!(bench.says(&latest.reference), "latest");

        let complained = bench.fail(&[&none.reference()]);
        let wanted = format!("error: {0} has no tag latest, and none was named\n", none.reference());
        assert!(complained.starts_with(&wanted), "{complained}");
        assert!(complained.contains(&format!("hint: name one, as in {0}:1; snap pull --all-tags {0} pulls all", none.reference())));
        let complained = bench.fail(&[&none.tagged("four")]);
        assert!(complained.contains("four") && !complained.contains("--all-tags"), "{complained}");
        bench.snap().assert_tidy();
    });
}

#[test]
fn quiet_prints_names_alone() {
    let tiny = image("tiny", "gzip");
    each_containerd(|bench| {
        let other = image("tiny", "zstd");
        let said = bench.snap().run(&["--quiet", &tiny.reference, &other.reference]).well();
        assert_eq!(said, format!("{}\n{}\n", tiny.reference, other.reference));
    });
}

#[test]
fn a_digest_names_the_same_for_ever() {
    let repository = Repository::new(image("tiny", "gzip").registry(), "scenes/pull-digest");
    let old = scenes::saying("old", &repository).publish(Some("moving"));
    scenes::saying("new", &repository).publish(Some("moving"));
    each_containerd(|bench| {
        let by_digest = format!("{}@{}", repository.reference(), old.digest());
        let told = bench.pull(&[&by_digest]);
        assert_eq!(told.ids()[0], by_digest);
        assert_eq!(told.steps()[by_digest.as_str()], ["Pulling from scenes/pull-digest"]);
        assert_eq!(told.remarks(), newer(old.digest(), &by_digest));
        assert_eq!(bench.says(&by_digest), "old");
        // The tag means something else by now: the digest decides.
        let both = format!("{}@{}", repository.tagged("moving"), old.digest());
        let told = bench.pull(&[&both]);
        assert_eq!(told.ids(), [by_digest.as_str()]);
        assert_eq!(told.remarks(), up_to_date(old.digest(), &by_digest));
        assert_eq!(bench.images(), [(by_digest, old.digest().to_owned())].into());
    });
}

#[test]
fn a_tag_moves_and_comes_back() {
    each_containerd(|bench| {
        let name = format!("pull-moving-{}", bench.containerd.machine.path().file_name().unwrap().to_str().unwrap().to_lowercase());
        let repository = Repository::new(image("tiny", "gzip").registry(), &format!("scenes/{name}"));
        let reference = repository.tagged("moving");
        for said in ["first", "second", "first"] {
            let published = scenes::saying(said, &repository).publish(Some("moving"));
            let told = bench.pull(&[&reference]);
            assert_eq!(told.remarks(), newer(published.digest(), &reference));
            assert_eq!(bench.says(&reference), said);
            // Nobody but docker keeps what has lost its name.
            assert_eq!(bench.images(), [(reference.clone(), published.digest().to_owned())].into());
        }
        bench.remove(&reference);
        bench.assert_empty();
    });
}

fn all_platforms(bench: &PullBench<'_>, scene: &scenes::Platforms) {
    let (architecture, other) = &scene.other;
    let index = scene.index["digest"].as_str().unwrap();
    let tagged = scene.repository.tagged(PLATFORMS_TAG);
    let told = bench.pull(&[&tagged]);
    let tops = [&scene.own, other].map(|image| id(image.layers.last().unwrap()));
    assert_eq!(tops.map(|top| told.ids().contains(&top)), [true, false], "{told:?}");
    assert_eq!(told.remarks(), newer(index, &tagged));
    let own = bench.says(&tagged);
    assert!(!own.is_empty() && own != *architecture);

    let complained = bench.fail(&["--platform", "linux/s390x", &tagged]);
    let there = format!("no image for platform linux/s390x; there are: linux/{architecture}, linux/{own}\n");
    assert!(complained.starts_with(&format!("error: {there}")), "{complained}");

    let told = bench.pull(&["--platform", &format!("linux/{architecture}"), &tagged]);
    assert!(told.ids().contains(&tops[1]) && !told.ids().contains(&tops[0]), "{told:?}");
    assert_eq!(told.remarks(), up_to_date(index, &tagged));
    assert!(bench.containerd.blobs(NAMESPACE).contains(other.digest()));
    // The name stands for both.
    assert_eq!(bench.says(&tagged), own);

    let nested = scene.repository.tagged(NESTED_TAG);
    let told = bench.pull(&[&nested]);
    assert_eq!(told.ids(), [NESTED_TAG]);
    bench.containerd.drop_leases(NAMESPACE);
    assert_eq!(bench.says(&nested), own);
    let by_digest = format!("{}@{index}", scene.repository.reference());
    let told = bench.pull(&[&by_digest]);
    assert_eq!(told.ids(), [by_digest.as_str()]);
    // As docker sees it.
    assert_eq!(told.remarks(), up_to_date(index, &by_digest));
    for reference in [&tagged, &nested, &by_digest] {
        bench.remove(reference);
    }
}

#[test]
fn an_index_has_an_image_for_each_platform() {
    let scene = scenes::platforms();
    everywhere(|bench| {
        all_platforms(bench, &scene);
        bench.assert_empty();
    });
}

/// It has a manifest, a configuration and layers, of which none is an archive.
#[test]
fn an_attestation_is_no_image() {
    let scene = scenes::platforms();
    let attestation = format!("{}@{}", scene.repository.reference(), scene.attestation["digest"].as_str().unwrap());
    each_containerd(|bench| {
        let complained = bench.fail(&[&attestation]);
        assert!(complained.contains("cannot unpack the layer") && complained.contains("application/vnd.in-toto+json"), "{complained}");
        assert_eq!(bench.images(), [].into());
        // What it brought is kept for another attempt.
        bench.containerd.drop_leases(NAMESPACE);
        assert_eq!((bench.containerd.snapshots(NAMESPACE), bench.containerd.blobs(NAMESPACE)), ([].into(), [].into()));
    });
}

#[test]
fn all_tags_are_pulled_but_an_invalid_one() {
    let repository = scenes::several_tags("pull-tags");
    let door = Door::to(&repository.registry);
    scenes::list_invalid_tag(&door, &repository);
    let repository = repository.at(&door.address);
    everywhere(|bench| {
        let (told, spoken) = bench.snap().run_telling(&["--all-tags", &repository.reference()]);
        assert_eq!((spoken.status, told.error()), (0, None), "{spoken:?}");
        told.assert_sound();
        assert!(spoken.complained.contains(scenes::INVALID_TAG) && spoken.complained.lines().count() == 1, "{spoken:?}");
        let tags: Vec<&str> = told.ids().into_iter().filter(|id| told.steps()[id] == ["Pulling from scenes/pull-tags"]).collect();
        assert_eq!(tags, TAGS);
        for tag in TAGS {
            assert_eq!(bench.says(&repository.tagged(tag)), tag);
        }
        let statuses = told.remarks().into_iter().filter(|remark| remark.starts_with("Status: Downloaded newer"));
        assert_eq!(statuses.count(), TAGS.len());
        assert_eq!(bench.images().len(), TAGS.len());
        // docker's word for word.
        let complained = bench.snap().run(&["-a", &repository.tagged(TAGS[0])]).complained;
        assert!(complained.starts_with("error: tag can't be used with --all-tags/-a\n"), "{complained}");
        let said = bench.snap().run(&["-a", &repository.reference()]).well();
        assert_eq!(said.lines().last(), Some(repository.reference().as_str()));
        assert_eq!(said.lines().filter(|line| line.contains("Image is up to date for ")).count(), TAGS.len());
        bench.snap().assert_tidy();
    });
}

#[test]
fn a_repository_that_does_not_exist() {
    let missing = format!("{}/scenes/pull-missing", image("tiny", "gzip").registry());
    each_containerd(|bench| {
        // Of a tag, this registry says no more than that there is no such image.
        let complained = bench.fail(&[&missing]);
        assert!(complained.starts_with(&format!("error: {missing} has no tag latest, and none was named\n")), "{complained}");
        let complained = bench.fail(&[&format!("{missing}:1")]);
        assert!(complained.contains("/manifests/1: ") && complained.contains("manifest unknown"), "{complained}");
        let complained = bench.fail(&["--all-tags", &missing]);
        let denied = format!("pull access denied for {missing}, repository does not exist or may require 'snap login' or 'docker login'");
        assert!(complained.starts_with(&format!("error: {denied}\n")), "{complained}");
        bench.assert_empty();
    });
}
