//! Every trap of tar's dialects, each as a stream written byte by byte.

#[path = "../tests/tar_writer/mod.rs"]
mod tar_writer;

use snap_digest::Digest;
use tar_writer::{BLOCK, GNU, TarWriter, V7, member, pax_records};

use crate::builder::Builder;
use crate::chunks::{Check, Chunk, ChunkPlan, Codec, Point};
use crate::tar::TarParser;
use crate::{Extent, IndexError, Inode, InodeKind, LayerIndex, Target, Timestamp, limits};

/// Parses the stream fed in pieces of `piece` bytes; the data is one stored chunk.
fn parse_in(tar: &[u8], piece: usize) -> Result<LayerIndex, IndexError> {
    let layer = Digest::of(tar);
    let bytes = tar.len() as u64;
    let mut parser = TarParser::new(Builder::new(layer, bytes));
    for piece in tar.chunks(piece) {
        parser.feed(piece)?;
    }
    let mut plan = ChunkPlan { data_bytes: bytes, ..ChunkPlan::default() };
    if bytes > 0 {
        plan.points.push(Point { blob_offset: 0, blob_bytes: bytes, decoded_bytes: bytes, codec: Codec::Stored, window: Vec::new() });
        let check = Check::Blake3(*blake3::hash(tar).as_bytes());
        plan.chunks.push(Chunk { data_offset: 0, bytes: bytes as u32, point: 0, skip: 0, check });
    }
    LayerIndex::open(Box::new(parser.finish()?.finish(plan, None)?), &layer)
}

fn parse(tar: &[u8]) -> Result<LayerIndex, IndexError> {
    parse_in(tar, usize::MAX)
}

fn find(index: &LayerIndex, path: &str) -> Option<Inode> {
    path.split('/').try_fold(index.inode(LayerIndex::ROOT), |directory, name| match index.lookup(&directory, name.as_bytes())? {
        Target::Inode(number) => Some(index.inode(number)),
        Target::Whiteout | Target::LowerLink(_) => None,
    })
}

/// The file's bytes, read from the stream through its extents.
fn content(index: &LayerIndex, tar: &[u8], path: &str) -> Vec<u8> {
    let inode = find(index, path).unwrap_or_else(|| panic!("{path} is missing"));
    assert_eq!(inode.kind(), InodeKind::File, "{path}");
    let mut bytes = vec![0; inode.size_bytes() as usize];
    for Extent { file_offset, data_offset, bytes: length } in index.extents(&inode) {
        bytes[file_offset as usize..][..length as usize].copy_from_slice(&tar[data_offset as usize..][..length as usize]);
    }
    bytes
}

fn xattrs(index: &LayerIndex, path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    index.xattrs(&find(index, path).unwrap()).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

#[test]
fn every_type_makes_its_inode() {
    let mut tar = TarWriter::default();
    let mut device = member("char", b'3');
    device.device = (4, 70_000);
    tar.file("file", b"content").add(&device, b"");
    tar.add(&member("block", b'4'), b"").add(&member("fifo", b'6'), b"").add(&member("dir/", b'5'), b"");
    tar.add(&member("link", b'2').link("../any where"), b"").add(&member("hard", b'1').link("file"), b"");
    tar.add(&member("old", 0), b"V7").add(&member("contiguous", b'7'), b"seven");
    let tar = tar.end();
    let index = parse(&tar).unwrap();
    let kinds = [("file", InodeKind::File), ("char", InodeKind::CharDevice), ("block", InodeKind::BlockDevice), ("fifo", InodeKind::Fifo)];
    for (path, kind) in kinds.into_iter().chain([("dir", InodeKind::Directory), ("link", InodeKind::Symlink), ("hard", InodeKind::File)]) {
        assert_eq!(find(&index, path).unwrap().kind(), kind, "{path}");
    }
    let char = find(&index, "char").unwrap();
    assert_eq!(Some(char.rdev()), crate::device_number(4, 70_000));
    assert_eq!((char.mode() & 0o7777, char.uid(), char.gid()), (0o644, 1, 2));
    assert_eq!(index.symlink_target(&find(&index, "link").unwrap()), b"../any where");
    assert_eq!(find(&index, "hard").unwrap().nlink(), 2);
    for (path, data) in [("file", &b"content"[..]), ("old", b"V7"), ("contiguous", b"seven")] {
        assert_eq!(content(&index, &tar, path), data);
    }
}

#[test]
fn an_unknown_type_is_named() {
    for typeflag in [b'V', b'M', b'D', b'A', b'8', 0xff] {
        let error = parse(&TarWriter::default().add(&member("odd", typeflag), b"").end()).err().unwrap();
        assert!(matches!(&error, IndexError::EntryType { path, typeflag: named } if path == "odd" && *named == char::from(typeflag)));
    }
}

#[test]
fn what_has_no_data_has_none_whatever_its_size_says() {
    let mut tar = TarWriter::default();
    tar.file("a", b"aaa");
    for (name, typeflag) in [("hard", b'1'), ("sym", b'2'), ("dir", b'5'), ("fifo", b'6')] {
        let mut odd = member(name, typeflag).link("a");
        odd.size = Some(5000);
        tar.add(&odd, b"");
    }
    let tar = tar.file("z", b"zzz").end();
    let index = parse(&tar).unwrap();
    assert_eq!(content(&index, &tar, "z"), b"zzz");
    assert_eq!(content(&index, &tar, "hard"), b"aaa");
}

#[test]
fn a_name_that_ends_in_a_slash_is_a_directory() {
    let mut v7 = member("v7/", 0);
    v7.magic = V7;
    let index = parse(&TarWriter::default().add(&v7, b"").add(&member("new/", b'0'), b"").end()).unwrap();
    assert_eq!(find(&index, "v7").unwrap().kind(), InodeKind::Directory);
    assert_eq!(find(&index, "new").unwrap().kind(), InodeKind::Directory);
    assert!(parse(&TarWriter::default().file("both/", b"data").end()).is_err());
}

#[test]
fn the_ustar_prefix_comes_before_the_name_and_gnu_has_none() {
    let mut tar = TarWriter::default();
    tar.add(&member("name", b'0').raw(345, b"some/prefix"), b"");
    let mut gnu = member("gnu", b'0').raw(345, b"\x00\x01binary times");
    gnu.magic = GNU;
    let mut v7 = member("v7", b'0').raw(345, b"rubbish").raw(329, b"rubbish");
    v7.magic = V7;
    tar.add(&gnu, b"").add(&v7, b"");
    tar.add(&member("star", b'0').raw(345, b"short").raw(476, b"00000000000\0").raw(508, b"tar\0"), b"");
    let index = parse(&tar.end()).unwrap();
    for path in ["some/prefix/name", "gnu", "v7", "short/star"] {
        assert!(find(&index, path).is_some(), "{path}");
    }
}

#[test]
fn a_name_may_fill_its_field() {
    let name = format!("{}/{}", "d".repeat(49), "f".repeat(50));
    let index = parse(&TarWriter::default().file(&name, b"").end()).unwrap();
    assert!(find(&index, &name).is_some());
}

#[test]
fn pax_records_replace_what_the_header_says() {
    let long = "n".repeat(200);
    let mut tar = TarWriter::default();
    tar.pax(&[
        ("path", long.as_bytes()),
        ("uid", b"3000000000"),
        ("gid", b"70000"),
        ("mtime", b"-1.25"),
        ("SCHILY.xattr.user.x", b"=\n\0"),
    ]);
    tar.file("short", b"data");
    tar.pax(&[("linkpath", long.as_bytes())]).add(&member("link", b'2').link("short"), b"");
    tar.file("after", b"");
    let tar = tar.end();
    let index = parse(&tar).unwrap();
    let file = find(&index, &long).unwrap();
    assert_eq!((file.uid(), file.gid()), (3_000_000_000, 70_000));
    assert_eq!(file.mtime(), Timestamp { seconds: -2, nanoseconds: 750_000_000 });
    assert_eq!(xattrs(&index, &long), [(b"user.x".to_vec(), b"=\n\0".to_vec())]);
    assert_eq!(index.symlink_target(&find(&index, "link").unwrap()), long.as_bytes());
    // Records are the next entry's only.
    assert_eq!((find(&index, "after").unwrap().uid(), xattrs(&index, "after").len()), (1, 0));
}

#[test]
fn the_pax_size_is_the_length_of_the_data() {
    let mut odd = member("f", b'0');
    odd.size = Some(0);
    let mut tar = TarWriter::default();
    tar.pax(&[("size", b"1000")]).add(&odd, &[7; 1000]).file("next", b"n");
    let tar = tar.end();
    let index = parse(&tar).unwrap();
    assert_eq!(content(&index, &tar, "f"), [7; 1000]);
    assert_eq!(content(&index, &tar, "next"), b"n");
}

#[test]
fn a_global_header_is_checked_and_changes_nothing() {
    let records = pax_records(&[("path", b"global"), ("SCHILY.xattr.user.x", b"1"), ("comment", b"0123456789")]);
    let mut tar = TarWriter::default();
    tar.add(&member("pax_global_header", b'g'), &records).file("f", b"");
    let index = parse(&tar.end()).unwrap();
    assert_eq!(index.inode_count(), 2);
    assert!(xattrs(&index, "f").is_empty());
    let broken = TarWriter::default().add(&member("pax_global_header", b'g'), b"7 x").file("f", b"").end();
    assert!(matches!(parse(&broken), Err(IndexError::Tar { .. })));
}

#[test]
fn gnu_long_names_and_links() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(250));
    let mut tar = TarWriter::default();
    let text = format!("{long}\0");
    tar.add(&member("././@LongLink", b'L'), text.as_bytes()).file("cut", b"data");
    tar.add(&member("././@LongLink", b'K'), text.as_bytes()).add(&member("hard", b'1').link("cut"), b"");
    tar.file("after", b"");
    let tar = tar.end();
    let index = parse(&tar).unwrap();
    assert_eq!(content(&index, &tar, &long), b"data");
    assert_eq!(content(&index, &tar, "hard"), b"data");
    assert!(find(&index, "after").is_some());
}

#[test]
fn numbers_may_be_binary_and_sums_signed() {
    let mut odd =
        member("f\u{e9}", b'0').raw(108, b"\x80\0\0\0\xff\xff\xff\xfe").raw(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf6");
    odd.signed_sum = true;
    let index = parse(&TarWriter::default().add(&odd, b"").end()).unwrap();
    let file = find(&index, "f\u{e9}").unwrap();
    assert_eq!((file.uid(), file.mtime().seconds), (u32::MAX - 1, -10));
}

#[test]
fn impossible_numbers_are_refused() {
    for (at, field) in [
        (108, &b"\x80\0\0\x01\0\0\0\0"[..]),
        (116, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        (124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        (124, b"9999999"),
        (329, b"x"),
    ] {
        assert!(parse(&TarWriter::default().add(&member("f", b'0').raw(at, field), b"").end()).is_err(), "{at} {field:?}");
    }
    let mut sum = TarWriter::default().file("f", b"").end();
    sum[0] = b'g';
    assert!(matches!(parse(&sum), Err(IndexError::Tar { at: 0, .. })));
}

/// A file of 10,000 bytes with data at 0 and 8192, holes between, in the map's four spellings.
#[test]
fn holes_are_found_in_every_spelling() {
    let packed = [&[1u8; 600][..], &[2; 700]].concat();
    let expected = [&[1u8; 600][..], &vec![0; 7592], &[2; 700], &vec![0; 1108]].concat();
    let entry = |offset: u64, bytes: u64| format!("{offset:011o}\0{bytes:011o}\0").into_bytes();
    let (real_size, plain) = (format!("{:011o}\0", 10_000).into_bytes(), member("GNUSparseFile.0/f", b'0'));

    let mut old = member("f", b'S').raw(386, &entry(0, 600)).raw(410, &entry(8192, 700)).raw(434, &entry(10_000, 0)).raw(483, &real_size);
    old.magic = GNU;
    let mut extended = member("f", b'S').raw(386, &entry(0, 150)).raw(410, &entry(150, 150)).raw(434, &entry(300, 150));
    extended = extended.raw(458, &entry(450, 150)).raw(482, &[1]).raw(483, &real_size);
    (extended.magic, extended.size) = (GNU, Some(1300));
    let mut extension = [entry(8192, 350), entry(8542, 350), entry(10_000, 0)].concat();
    extension.resize(BLOCK, 0);
    let map = b"3\n0\n600\n8192\n700\n10000\n0\n";
    let text = [&map[..], &vec![0; BLOCK - map.len()], &packed].concat();
    let common = [("GNU.sparse.name", &b"f"[..]), ("GNU.sparse.realsize", b"10000")];

    let spellings = [
        TarWriter::default().add(&old, &packed).file("z", b"z").end(),
        TarWriter::default().add(&extended, b"").raw(&extension).raw(&packed).file("z", b"z").end(),
        TarWriter::default()
            .pax(&[
                ("GNU.sparse.size", b"10000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"600"),
                ("GNU.sparse.offset", b"8192"),
                ("GNU.sparse.numbytes", b"700"),
            ])
            .add(&member("f", b'0'), &packed)
            .file("z", b"z")
            .end(),
        TarWriter::default()
            .pax(&[("GNU.sparse.size", b"10000"), ("GNU.sparse.name", b"f"), ("GNU.sparse.map", b"0,600,8192,700")])
            .add(&plain, &packed)
            .file("z", b"z")
            .end(),
        TarWriter::default()
            .pax(&[&common[..], &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]].concat())
            .add(&plain, &text)
            .file("z", b"z")
            .end(),
    ];
    for (number, tar) in spellings.iter().enumerate() {
        let index = parse(tar).unwrap_or_else(|error| panic!("spelling {number}: {error}"));
        assert!(content(&index, tar, "f") == expected, "spelling {number}");
        assert_eq!(content(&index, tar, "z"), b"z", "spelling {number}");
        assert_eq!(index.extents(&find(&index, "f").unwrap()).len(), 2, "parts that touch are one extent");
    }
}

#[test]
fn sparse_files_that_do_not_add_up_are_refused() {
    let pax = |records: &[(&str, &[u8])], data: &[u8]| parse(&TarWriter::default().pax(records).file("f", data).end());
    assert!(pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")], b"").is_err(), "unknown version");
    assert!(pax(&[("GNU.sparse.major", b"0"), ("GNU.sparse.minor", b"1")], b"").is_err(), "no map");
    assert!(pax(&[("GNU.sparse.map", b"0,5"), ("GNU.sparse.size", b"9")], b"1234").is_err(), "too little data");
    assert!(pax(&[("GNU.sparse.map", b"0,5"), ("GNU.sparse.size", b"4")], b"12345").is_err(), "outside of the file");
    let version = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")];
    assert!(pax(&version, b"1\n").is_err(), "a map longer than the data");
    assert!(pax(&version, &[b'1'; 512]).is_err(), "an endless number");
    let posix = member("f", b'S');
    assert!(parse(&TarWriter::default().add(&posix, b"").end()).is_err(), "an old map without GNU's magic");
}

#[test]
fn the_archive_ends_at_two_zero_blocks_or_where_the_stream_does() {
    let mut tar = TarWriter::default();
    tar.file("f", b"data");
    let whole = tar.bytes.clone();
    for tail in [&[][..], &[0; BLOCK], &[0; 2 * BLOCK], &[0; 20 * BLOCK], &[&[0; 2 * BLOCK][..], b"anything at all"].concat()] {
        let tar = [&whole, tail].concat();
        assert_eq!(content(&parse(&tar).unwrap(), &tar, "f"), b"data", "{} bytes behind", tail.len());
    }
    let lone = [&whole[..], &[0; BLOCK], &whole].concat();
    assert!(matches!(parse(&lone), Err(IndexError::Tar { .. })));
    assert_eq!(parse(b"").unwrap().inode_count(), 1);
    assert_eq!(parse(&[0; BLOCK]).unwrap().inode_count(), 1);
    assert_eq!(parse(&[0; 10 * BLOCK]).unwrap().inode_count(), 1);
}

#[test]
fn a_stream_that_is_cut_is_refused_wherever_an_entry_is_cut() {
    let mut tar = TarWriter::default();
    tar.pax(&[("mtime", b"1.5")]).file("f", &[1; 700]);
    tar.add(&member("././@LongLink", b'L'), &[&b"n/".repeat(299)[..], b"nn"].concat()).file("short", b"x");
    let tar = tar.bytes;
    // Headers and payloads by offset: x 0, records 512, f 1024, data 1536 to 2236, L 2560, name 3072 to 4096, short 4096, data 4608.
    let may_end = |bytes: usize| bytes == 0 || bytes == 1024 || (2236..=2560).contains(&bytes) || bytes == 4096 || bytes >= 4609;
    for bytes in 0..=tar.len() {
        let cut = parse(&tar[..bytes]);
        match may_end(bytes) {
            true => assert!(cut.is_ok(), "{bytes}"),
            false => assert!(matches!(cut, Err(IndexError::Truncated { format: "tar", at }) if at == bytes as u64), "{bytes}"),
        }
    }
}

#[test]
fn headers_of_headers_are_bounded() {
    for typeflag in [b'x', b'g', b'L', b'K'] {
        let mut huge = member("huge", typeflag);
        huge.size = Some(limits::TAR_METADATA_BYTES_MAX as u64 + 1);
        assert!(matches!(parse(&TarWriter::default().add(&huge, b"").end()), Err(IndexError::Limit { .. })));
    }
    let mut huge = member("huge", b'0');
    huge.size = Some(0o77777777777);
    assert!(matches!(parse(&TarWriter::default().add(&huge.clone(), b"").end()), Err(IndexError::Truncated { .. })));
    huge = huge.raw(124, b"\x80\0\0\0\0\0\x02\0\0\0\0\0");
    assert!(matches!(parse(&TarWriter::default().add(&huge, b"").end()), Err(IndexError::Limit { .. })));
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let mut tar = TarWriter::default();
    tar.pax(&[("SCHILY.xattr.user.x", &[7; 900])]).file("dir/f", &[1; 1300]).file("g", &[2; 512]).file("h", b"");
    let tar = tar.end();
    let whole = parse(&tar).unwrap();
    for piece in [1, 2, 3, 511, 512, 513, 1000, 4096] {
        let index = parse_in(&tar, piece).unwrap();
        assert_eq!(index.inode_count(), whole.inode_count());
        assert_eq!(content(&index, &tar, "dir/f"), [1; 1300], "{piece}");
        assert_eq!(content(&index, &tar, "g"), [2; 512]);
        assert_eq!(xattrs(&index, "dir/f")[0].1, [7; 900]);
    }
}

#[test]
fn paths_are_cleaned_parents_made_and_the_last_of_a_name_stays() {
    let mut tar = TarWriter::default();
    tar.file("./a/b/c", b"1").file("/d", b"2").file("../../e", b"3").file("a/../f", b"4").file("d", b"last");
    let tar = tar.end();
    let index = parse(&tar).unwrap();
    for (path, data) in [("a/b/c", &b"1"[..]), ("d", b"last"), ("e", b"3"), ("f", b"4")] {
        assert_eq!(content(&index, &tar, path), data);
    }
    assert!(find(&index, "a").unwrap().is_implied());
}
