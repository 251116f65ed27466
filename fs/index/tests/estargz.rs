//! eStargz blobs of a writer of the tests' own: what is read back, what is refused, and that no change of a byte or a field goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use snap_digest::Digest;
use snap_index::{EstargzTail, IndexError, InodeKind, LayerIndex, Target, dump, estargz_tail_bytes, open_estargz};

use support::estargz::{Estargz, gzip};
use support::{content_of, data_of};

const CHUNK_BYTES: usize = 1000;

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number * number / 7) as u8).collect()
}

fn layer() -> Digest {
    Digest::of(b"the layer")
}

fn open_with(blob: &[u8], toc_digest: &Digest) -> Result<EstargzTail, IndexError> {
    open_estargz(&layer(), blob.len() as u64, blob, toc_digest)
}

fn index_of(estargz: &Estargz) -> Result<LayerIndex, IndexError> {
    let (blob, digest) = estargz.finish();
    match open_with(&blob, &digest)? {
        EstargzTail::Index(file) => LayerIndex::open(Box::new(file), &layer()),
        other => panic!("{other:?} is no index"),
    }
}

/// A layer with everything the format has.
static RICH: LazyLock<Estargz> = LazyLock::new(make_rich);

fn rich() -> Estargz {
    RICH.clone()
}

fn make_rich() -> Estargz {
    let mut estargz = Estargz::new(CHUNK_BYTES);
    estargz.file(".no.prefetch.landmark", b"\x0f");
    estargz.entry(json!({"name": "dir/", "type": "dir", "mode": 0o41755, "uid": 5, "gid": 6, "modtime": "2023-11-14T22:13:20Z"}));
    estargz.file("dir/.prefetch.landmark", b"not hidden");
    estargz.file("dir/empty", b"");
    estargz.file("dir/small", &bytes(10));
    estargz.file("./dir/full", &bytes(2 * CHUNK_BYTES));
    estargz.file("dir/chunks", &bytes(3 * CHUNK_BYTES + 1));
    estargz.pack(&[("packed/a", b"aaa"), ("packed/b", &bytes(700)), ("packed/c", b"c")]);
    estargz.entry(json!({"name": "dir/link", "type": "symlink", "linkName": "../none", "mode": 0o777}));
    estargz.entry(json!({"name": "early", "type": "hardlink", "linkName": "./late"}));
    estargz.file("late", &bytes(50));
    estargz.entry(json!({"name": "tty", "type": "char", "devMajor": 5, "devMinor": 1, "mode": 0o620}));
    estargz.entry(json!({"name": "disk", "type": "block", "devMajor": 259, "devMinor": 1000}));
    let xattrs = json!({"user.a": "AP8=", "user.none": null});
    estargz.entry(json!({"name": "pipe", "type": "fifo", "xattrs": xattrs, "userName": "root"}));
    estargz.file("dir/.wh.gone", b"");
    estargz.file("dir/.wh..wh..opq", b"");
    let mut twin = estargz.entries.iter().find(|entry| entry["name"] == "late").unwrap().clone();
    twin["name"] = json!("twin");
    estargz.entry(twin);
    estargz
}

#[test]
fn every_kind_of_entry_is_there() {
    let index = index_of(&rich()).unwrap();
    let lines: Vec<_> = dump(&index).map(|(line, _)| format!("{} {} {} {}", line.name, line.kind, line.mode, line.link)).collect();
    let expected = [
        "dir/ dir 0o1755 ",
        "dir/.wh..wh..opq reg 0o644 ",
        "dir/.prefetch.landmark reg 0o644 ",
        "dir/chunks reg 0o644 ",
        "dir/empty reg 0o644 ",
        "dir/full reg 0o644 ",
        "dir/.wh.gone reg 0o644 ",
        "dir/link symlink 0o777 ../none",
        "dir/small reg 0o644 ",
        "disk block 0o0 ",
        "early reg 0o644 ",
        "late hardlink 0o644 early",
        "packed/a reg 0o600 ",
        "packed/b reg 0o600 ",
        "packed/c reg 0o600 ",
        "pipe fifo 0o0 ",
        "tty char 0o620 ",
        "twin reg 0o644 ",
    ];
    assert_eq!(lines, expected);
    let line = |name: &str| dump(&index).find(|(line, _)| line.name == name).unwrap().0;
    assert_eq!((line("dir/").uid, line("dir/").gid, line("dir/").mtime.seconds), (5, 6, 1_700_000_000));
    assert_eq!((line("tty").dev, line("disk").dev), ([5, 1], [259, 1000]));
    let xattrs: Vec<_> = line("pipe").xattrs.into_iter().collect();
    assert_eq!(xattrs, [("user.a".to_owned(), "0sAP8=".to_owned()), ("user.none".to_owned(), String::new())]);
}

#[test]
fn every_file_reads_back_from_one_aligned_extent() {
    let estargz = rich();
    let (blob, _) = estargz.finish();
    let index = index_of(&estargz).unwrap();
    let data = data_of(&index, &blob).unwrap();
    let contents: Vec<_> = dump(&index)
        .filter_map(|(line, inode)| inode.filter(|inode| inode.kind() == InodeKind::File).map(|inode| (line.name, inode)))
        .map(|(name, inode)| {
            let extents: Vec<_> = index.extents(&inode).collect();
            assert!(extents.len() <= 1 && extents.iter().all(|extent| extent.data_offset % 512 == 0), "{name}: {extents:?}");
            (name, content_of(&index, &inode, &data))
        })
        .collect();
    let expected: [(&str, &[u8]); 11] = [
        ("dir/.prefetch.landmark", b"not hidden"),
        ("dir/chunks", &bytes(3 * CHUNK_BYTES + 1)),
        ("dir/empty", b""),
        ("dir/full", &bytes(2 * CHUNK_BYTES)),
        ("dir/small", &bytes(10)),
        ("early", &bytes(50)),
        ("late", &bytes(50)),
        ("packed/a", b"aaa"),
        ("packed/b", &bytes(700)),
        ("packed/c", b"c"),
        ("twin", &bytes(50)),
    ];
    assert_eq!(contents.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect::<Vec<_>>(), expected);
    let extent = |name: &[u8]| match index.lookup(&index.inode(0), name) {
        Some(Target::Inode(number)) => index.extents(&index.inode(number)).next(),
        other => panic!("{other:?}"),
    };
    assert_eq!(extent(b"late"), extent(b"twin"), "a shared payload is there once");
}

#[test]
fn a_short_tail_asks_for_what_is_missing() {
    let (blob, digest) = rich().finish();
    let end = blob.len() as u64;
    let open = |start: u64| open_estargz(&layer(), end, &blob[start as usize..], &digest).unwrap();
    assert_eq!(open(end - 10), EstargzTail::Need(end - 51..end));
    let EstargzTail::Need(range) = open(end - 51) else { panic!("the footer alone is not enough") };
    assert_eq!(range.end, end);
    assert!(matches!(open(range.start), EstargzTail::Index(_)));
    assert!(matches!(open(range.start + 1), EstargzTail::Need(again) if again == range));
    assert_eq!(open(0), open(range.start));
    assert_eq!((estargz_tail_bytes(0), estargz_tail_bytes(1000)), (0, 1000));
    assert_eq!(estargz_tail_bytes(u64::MAX), 4 << 20);
}

#[test]
fn other_blobs_and_older_forms_are_told_apart() {
    let digest = Digest::of(b"");
    assert_eq!(open_with(&gzip(&[], &bytes(5000)), &digest).unwrap(), EstargzTail::Not);
    assert_eq!(open_with(b"", &digest).unwrap(), EstargzTail::Not);
    let error = |footer: Vec<u8>| open_with(&[vec![0; 100], footer].concat(), &digest).unwrap_err().to_string();
    assert!(error(gzip(b"0000000000000010STARGZ", b"")).contains("old stargz form"));
    assert!(error(gzip(b"SG\x11\0STARGZEXTERNALTOC", b"")).contains("another image"));
    assert!(error(gzip(b"SG\x16\x000000000000000064STARGZ", b"")).contains("outside of the blob"));
    assert!(error(gzip(b"SG\x16\0ffffffffffffffffSTARGZ", b"")).contains("outside of the blob"));
    assert!(error(gzip(b"SG\x16\x000000000000000010STARGZ", b"")).contains("malformed gzip"));
    assert!(open_estargz(&layer(), 10, &[0; 100], &digest).is_err(), "a tail longer than its blob");
}

#[test]
fn another_toc_than_the_descriptors_is_refused() {
    let (blob, _) = rich().finish();
    assert!(matches!(open_with(&blob, &Digest::of(b"other")), Err(IndexError::Digest { .. })));
    let cut = gzip(&[], &[b"stargz.index.json".to_vec(), vec![0; 107], b"00000000200\0".to_vec(), vec![0; 20]].concat());
    let footer = gzip(format!("SG\x16\0{:016x}STARGZ", 0).as_bytes(), b"");
    assert!(matches!(open_with(&[cut, footer].concat(), &Digest::of(b"")), Err(IndexError::Truncated { .. })));
}

/// What opening says when `change` was done to the TOC.
fn refusal(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut estargz = rich();
    change(&mut estargz.entries);
    index_of(&estargz).map(|_| ()).unwrap_err().to_string()
}

fn at(entries: &[Value], name: &str, kind: &str) -> usize {
    entries.iter().position(|entry| entry["name"] == name && entry["type"] == kind).unwrap()
}

/// The refusal after one field of one entry was set.
fn set(name: &str, kind: &str, field: &str, value: Value) -> String {
    refusal(|entries| {
        let entry = at(entries, name, kind);
        entries[entry][field] = value;
    })
}

#[test]
fn impossible_chunks_are_refused_with_the_rule() {
    for (message, rule) in [
        (set("dir/chunks", "chunk", "chunkOffset", json!(1001)), "overlap, leave a gap"),
        (set("dir/chunks", "chunk", "chunkOffset", json!(999)), "overlap, leave a gap"),
        (set("dir/chunks", "reg", "chunkSize", json!(999)), "overlap, leave a gap"),
        (set("dir/chunks", "reg", "chunkOffset", json!(1)), "overlap, leave a gap"),
        (set("dir/chunks", "reg", "size", json!(3000)), "a chunk goes beyond its end"),
        (set("dir/small", "reg", "chunkSize", json!(11)), "a chunk goes beyond its end"),
        (set("dir/small", "reg", "chunkSize", json!(9)), "do not cover all"),
        (set("dir/small", "reg", "size", json!((64 << 20) + 1)), "over 64 MiB"),
        (set("dir/small", "reg", "offset", json!(1u64 << 40)), "outside of the blob's members"),
        (set("packed/a", "reg", "innerOffset", json!(u64::MAX)), "outside of the blob's members"),
        (set("dir/chunks", "chunk", "chunkDigest", json!("")), "no digest"),
        (set("dir/small", "reg", "chunkDigest", json!("sha512:00")), "no digest"),
        (set("packed/b", "reg", "innerOffset", json!(512)), "overlaps another"),
        (set("dir/chunks", "chunk", "offset", json!(0)), "out of order in the blob"),
        (set("dir/empty", "reg", "type", json!("chunk")), "overlap, leave a gap"),
        (set("dir/link", "symlink", "type", json!("chunk")), "overlap, leave a gap"),
    ] {
        assert!(message.contains(rule), "{message:?} should say {rule:?}");
    }
}

#[test]
fn impossible_entries_are_refused_with_the_rule() {
    for (message, rule) in [
        (set("dir/link", "symlink", "type", json!("door")), "its type is none"),
        (set("dir/link", "symlink", "linkName", json!("")), "link target is empty"),
        (set("early", "hardlink", "linkName", json!("dir")), "hard link to a directory"),
        (set("dir/", "dir", "modtime", json!("yesterday")), "not RFC 3339"),
        (set("dir/", "dir", "uid", json!(-1)), "not the JSON it must be"),
        (set("dir/", "dir", "mode", json!("755")), "not the JSON it must be"),
        (set("dir/", "dir", "name", json!("a\u{0}b")), "NUL"),
        (set("dir/", "dir", "name", json!("n".repeat(256))), "over 255 bytes"),
        (set("tty", "char", "devMajor", json!(4096)), "device number is too large"),
        (set("pipe", "fifo", "xattrs", json!({"user.a": "?"})), "not base64"),
        (set("pipe", "fifo", "xattrs", json!({"": "AA=="})), "extended attribute"),
        (set("pipe", "fifo", "xattrs", json!([1])), "not the JSON it must be"),
        (set("late", "reg", "name", json!("dir/small/late")), "a parent is not a directory"),
        (refusal(|entries| entries.insert(0, json!({"name": "x", "type": "chunk"}))), "follows no file"),
    ] {
        assert!(message.contains(rule), "{message:?} should say {rule:?}");
    }
}

#[test]
fn a_toc_that_is_none_is_refused() {
    let estargz = rich();
    for (toc, rule) in [
        ("", "EOF"),
        ("[]", "a table of contents"),
        ("{}", "missing field `version`"),
        (r#"{"version":1}"#, "missing field `entries`"),
        (r#"{"version":2,"entries":[]}"#, "its version is not 1"),
        (r#"{"version":1,"entries":[],"entries":[]}"#, "duplicate field"),
        (r#"{"version":1,"entries":[]} x"#, "trailing characters"),
        (r#"{"version":1,"entries":[{"name":"a","name":"b"}]}"#, "duplicate field"),
    ] {
        let (blob, digest) = estargz.finish_with(toc);
        let message = open_with(&blob, &digest).unwrap_err().to_string();
        assert!(message.contains(rule), "{message:?} should say {rule:?}");
    }
    let (blob, digest) = estargz.finish_with(r#"{"other":[{}],"entries":[{"name":"a","type":"dir","new":{"x":[]}}],"version":1}"#);
    assert!(matches!(open_with(&blob, &digest), Ok(EstargzTail::Index(_))), "what is not known is passed over");
}

/// An index may be refused on open by nobody, and its chunks are either right or refused.
fn check_whole(result: Result<EstargzTail, IndexError>, blob: &[u8]) {
    let Ok(EstargzTail::Index(file)) = result else { return };
    let index = LayerIndex::open(Box::new(file), &layer()).expect("what was written can be opened");
    let Ok(data) = data_of(&index, blob) else { return };
    for (line, inode) in dump(&index) {
        if let Some(inode) = inode.filter(|inode| inode.size_bytes() < 1 << 20) {
            let size_bytes = if inode.kind() == InodeKind::File { inode.size_bytes() } else { 0 };
            assert_eq!(content_of(&index, &inode, &data).len() as u64, size_bytes, "{}", line.name);
        }
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(&[0u64, 1, 9, 11, 512, 999, 1000, 1001, 3000, 1 << 26, (1 << 26) + 1, 1 << 40, 1 << 63, u64::MAX][..])
            .prop_map(Value::from),
        (0u64..20_000).prop_map(Value::from),
        prop::sample::select(&["", ".", "..", "/", "dir", "dir/", "late", "chunk", "reg", "dir/chunks", "a/../../b", "hardlink"][..])
            .prop_map(Value::from),
        Just(Value::Null),
        Just(json!({})),
        Just(json!(-1)),
    ]
}

const FIELDS: [&str; 14] = [
    "name",
    "type",
    "size",
    "offset",
    "innerOffset",
    "chunkOffset",
    "chunkSize",
    "chunkDigest",
    "digest",
    "linkName",
    "mode",
    "modtime",
    "xattrs",
    "devMajor",
];

#[derive(Clone, Debug)]
enum Change {
    Set(usize, &'static str, Value),
    Copy(usize, usize),
    Remove(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let entry = || 0..40usize;
    prop_oneof![
        8 => (entry(), prop::sample::select(&FIELDS[..]), json_value()).prop_map(|(entry, field, value)| Change::Set(entry, field, value)),
        1 => (entry(), entry()).prop_map(|(from, to)| Change::Copy(from, to)),
        1 => entry().prop_map(Change::Remove),
        1 => (entry(), entry()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_the_toc_makes_an_index_that_breaks_the_rules(changes in prop::collection::vec(change(), 1..4)) {
        let mut estargz = rich();
        let count = estargz.entries.len();
        for change in changes {
            let entries = &mut estargz.entries;
            match change {
                Change::Set(entry, field, value) => {
                    let count = entries.len();
                    entries[entry % count][field] = value;
                }
                Change::Copy(from, to) => {
                    let copy = entries[from % entries.len()].clone();
                    entries.insert(to % count.min(entries.len()), copy);
                }
                Change::Remove(entry) => {
                    entries.remove(entry % entries.len());
                }
                Change::Swap(one, other) => {
                    let count = entries.len();
                    entries.swap(one % count, other % count);
                }
            }
        }
        let (blob, digest) = estargz.finish();
        check_whole(open_with(&blob, &digest), &blob);
    }

    #[test]
    fn no_change_of_a_byte_goes_unnoticed(from_end in 1..3000usize, flip in 1..=255u8) {
        let (blob, digest) = rich().finish();
        let mut changed = blob.clone();
        let at = changed.len() - from_end.min(changed.len());
        changed[at] ^= flip;
        // Some bytes of gzip headers and trailers and of tar padding mean nothing here.
        if let Ok(EstargzTail::Index(file)) = open_with(&changed, &digest) {
            prop_assert_eq!(Some(EstargzTail::Index(file)), open_with(&blob, &digest).ok());
        }
    }

    #[test]
    fn no_footer_goes_wrong(extra in prop::collection::vec(any::<u8>(), 0..26), digits in "[0-9a-fA-F+ -]{14,17}", tail in 0..60usize) {
        let estargz = format!("SG\x16\0{digits}STARGZ").into_bytes();
        for extra in [extra, estargz] {
            let blob = [vec![7; 3000], gzip(&extra, b"")].concat();
            let start = blob.len() - tail.min(blob.len());
            let opened = open_estargz(&layer(), blob.len() as u64, &blob[start..], &Digest::of(b""));
            prop_assert!(!matches!(opened, Ok(EstargzTail::Index(_))));
        }
    }
}
