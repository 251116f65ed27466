//! The invariants of the index file, checked once on open. An index is input, not truth.
//!
//! The work is linear in the file (with a logarithm for extents): records that are walked by a range are the range's own, so that no
//! file can make few records be walked many times.

use crate::error::IndexError;
use crate::format::{self, DirentRecord, InodeRecord, Section};
use crate::layer_index::{InodeKind, LayerIndex};
use crate::limits;
use crate::write::{CHECK_BLAKE3, CHECK_SHA256, CODEC_DEFLATE, CODEC_STORED, CODEC_ZSTD, file_type};

/// Whether `first..first + count` are numbers of the section.
fn within(index: &LayerIndex, section: Section, first: u32, count: u32) -> bool {
    first.checked_add(count).is_some_and(|end| end <= index.sections().count(section))
}

struct Checked<'a> {
    index: &'a LayerIndex,
    section: Section,
    number: u32,
}

impl Checked<'_> {
    fn require(&self, holds: bool, what: &'static str) -> Result<(), IndexError> {
        if holds { Ok(()) } else { Err(IndexError::Damaged { what, at: self.index.sections().place(self.section, self.number) }) }
    }
}

pub(crate) fn validate(index: &LayerIndex) -> Result<(), IndexError> {
    let root = Checked { index, section: Section::Inodes, number: 0 };
    root.require(index.inode_count() > 0, "there is no root")?;
    root.require(index.inode_count() as usize <= limits::ENTRIES_MAX, "there are too many inodes")?;
    root.require(index.inode(0).kind() == InodeKind::Directory, "the root is not a directory")?;
    root.require(index.data_bytes() <= limits::DATA_BYTES_MAX, "data space is too long")?;
    root.require(index.blob_bytes() <= i64::MAX as u64, "the blob's size is impossible")?;
    let counts = [
        (Section::Extents, limits::EXTENTS_MAX),
        (Section::Xattrs, limits::XATTRS_MAX),
        (Section::Chunks, limits::CHUNKS_MAX),
        (Section::Points, limits::CHUNKS_MAX),
        (Section::Strings, limits::STRINGS_BYTES_MAX),
        (Section::Windows, limits::WINDOWS_BYTES_MAX),
    ];
    for (section, max) in counts {
        root.require(index.sections().count(section) as usize <= max, "a section is too long")?;
    }
    points(index)?;
    chunks(index)?;
    xattrs(index)?;
    inodes(index)?;
    tree(index)
}

fn points(index: &LayerIndex) -> Result<(), IndexError> {
    let mut blob_start = 0;
    let mut window_end = 0u64;
    let windows = index.sections().count(Section::Windows);
    for number in 0..index.point_count() {
        let check = Checked { index, section: Section::Points, number };
        let point = index.point_record(number);
        let end = point.blob_offset.checked_add(point.blob_bytes);
        check.require(
            point.blob_offset >= blob_start && end.is_some_and(|end| end <= index.blob_bytes()),
            "a point is out of the blob or out of order",
        )?;
        check.require((CODEC_STORED..=CODEC_ZSTD).contains(&point.codec), "a point has an unknown codec")?;
        check.require(point.bits <= 7 && (point.bits == 0 || point.codec == CODEC_DEFLATE), "a point has impossible bits")?;
        check.require(point.decoded_bytes <= limits::DATA_BYTES_MAX, "a point decodes to too much")?;
        let window = u64::from(point.window_at) + u64::from(point.window_bytes);
        check.require(u64::from(point.window_at) >= window_end && window <= u64::from(windows), "a point's window is out of place")?;
        (blob_start, window_end) = (point.blob_offset, window);
    }
    Ok(())
}

fn chunks(index: &LayerIndex) -> Result<(), IndexError> {
    let (mut data_end, mut last_point, mut decoded_end) = (0, 0, 0);
    for number in 0..index.chunk_count() {
        let check = Checked { index, section: Section::Chunks, number };
        let chunk = index.chunk_record(number);
        let end = chunk.data_offset.checked_add(u64::from(chunk.bytes));
        check.require(chunk.bytes > 0 && u64::from(chunk.bytes) <= limits::CHUNK_BYTES_MAX, "a chunk is empty or too long")?;
        check.require(
            chunk.data_offset >= data_end && end.is_some_and(|end| end <= index.data_bytes()),
            "a chunk is out of data space or out of order",
        )?;
        check.require(chunk.point < index.point_count() && chunk.point >= last_point, "a chunk's point is out of order")?;
        if chunk.point != last_point {
            decoded_end = 0;
        }
        let decoded = chunk.skip.checked_add(u64::from(chunk.bytes));
        check.require(
            chunk.skip >= decoded_end && decoded.is_some_and(|end| end <= index.point_record(chunk.point).decoded_bytes),
            "a chunk lies outside of what its point decodes to",
        )?;
        check.require(matches!(chunk.check, CHECK_SHA256 | CHECK_BLAKE3) && chunk.reserved == 0, "a chunk has no known check")?;
        (data_end, last_point, decoded_end) = (end.unwrap_or(u64::MAX), chunk.point, decoded.unwrap_or(u64::MAX));
    }
    Ok(())
}

fn xattrs(index: &LayerIndex) -> Result<(), IndexError> {
    for number in 0..index.sections().count(Section::Xattrs) {
        let check = Checked { index, section: Section::Xattrs, number };
        let xattr = index.xattr_record(number);
        check.require(
            within(index, Section::Strings, xattr.name_at, xattr.name_bytes)
                && within(index, Section::Strings, xattr.value_at, xattr.value_bytes),
            "an extended attribute lies outside of the strings",
        )?;
        let name = index.sections().string(xattr.name_at, xattr.name_bytes);
        check.require(
            !name.is_empty()
                && name.len() <= limits::XATTR_NAME_BYTES_MAX
                && !name.contains(&0)
                && xattr.value_bytes as usize <= limits::XATTR_VALUE_BYTES_MAX,
            "an extended attribute is impossible",
        )?;
    }
    Ok(())
}

/// Counts down what is left of a section while ranges of it are given out.
struct Budget(u64);

impl Budget {
    fn of(index: &LayerIndex, section: Section) -> Self {
        Self(u64::from(index.sections().count(section)))
    }

    fn spend(&mut self, count: u32) -> bool {
        let left = self.0.checked_sub(u64::from(count));
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

fn inodes(index: &LayerIndex) -> Result<(), IndexError> {
    let covered = Covered::of(index);
    let (mut xattrs, mut extents, mut strings) =
        (Budget::of(index, Section::Xattrs), Budget::of(index, Section::Extents), Budget::of(index, Section::Strings));
    for number in 0..index.inode_count() {
        let check = Checked { index, section: Section::Inodes, number };
        let record = index.inode_record(number);
        let inode = index.inode(number);
        check.require(record.mode & !(file_type::MASK | 0o7777) == 0, "an inode's mode is impossible")?;
        check.require(
            matches!(
                record.mode & file_type::MASK,
                file_type::FIFO | file_type::CHARACTER | file_type::DIRECTORY | file_type::BLOCK | file_type::REGULAR | file_type::SYMLINK
            ),
            "an inode has no known type",
        )?;
        check.require(record.mtime_nanoseconds < 1_000_000_000, "an inode's time is impossible")?;
        check.require(record.size <= i64::MAX as u64, "an inode's size is impossible")?;
        check.require(record.xattr_count as usize <= limits::XATTRS_PER_ENTRY_MAX, "an inode has too many extended attributes")?;
        check.require(
            within(index, Section::Xattrs, record.xattr_first, record.xattr_count) && xattrs.spend(record.xattr_count),
            "an inode's extended attributes are missing, or another's",
        )?;
        let flags = if inode.kind() == InodeKind::Directory { format::FLAG_OPAQUE | format::FLAG_IMPLIED } else { 0 };
        check.require(record.flags & !flags == 0, "an inode has unknown flags")?;
        check.require(index.xattrs(&inode).map(|(name, _)| name).is_sorted_by(|a, b| a < b), "extended attributes are out of order")?;
        match inode.kind() {
            InodeKind::Directory => {
                check.require(within(index, Section::Dirents, record.first, record.count), "a directory's entries are missing")?
            }
            InodeKind::Symlink => {
                let fits = within(index, Section::Strings, record.first, record.count) && strings.spend(record.count);
                check.require(fits, "a symbolic link's target is missing")?;
                let target = index.symlink_target(&inode);
                check.require(
                    !target.is_empty()
                        && target.len() as u64 == record.size
                        && target.len() <= limits::PATH_BYTES_MAX
                        && !target.contains(&0),
                    "a symbolic link's target is impossible",
                )?;
            }
            InodeKind::File => {
                check.require(within(index, Section::Extents, record.first, record.count), "a file's extents are missing")?;
                check.require(extents.spend(record.count), "a file's extents are another's")?;
                file(index, &check, &covered, &record)?;
            }
            // It would hide what lower layers have, and a layer says that with a whiteout.
            InodeKind::CharDevice => check.require(record.rdev != 0, "a device is overlayfs' whiteout")?,
            InodeKind::BlockDevice | InodeKind::Fifo => {}
        }
    }
    Ok(())
}

fn file(index: &LayerIndex, check: &Checked<'_>, covered: &Covered, record: &InodeRecord) -> Result<(), IndexError> {
    let mut file_end = 0;
    for extent in (record.first..record.first + record.count).map(|number| index.extent(number)) {
        let end = extent.file_offset.checked_add(extent.bytes);
        let data_end = extent.data_offset.checked_add(extent.bytes);
        check.require(
            extent.bytes > 0 && extent.file_offset >= file_end && end.is_some_and(|end| end <= record.size),
            "a file's extents are out of order",
        )?;
        check.require(data_end.is_some_and(|end| end <= index.data_bytes()), "a file's extent lies outside of data space")?;
        check.require(covered.holds(extent.data_offset, extent.data_offset + extent.bytes), "a file's bytes are in no chunk")?;
        file_end = end.unwrap_or(u64::MAX);
    }
    Ok(())
}

/// The parts of data space that chunks cover without a gap, ascending and apart.
struct Covered(Vec<(u64, u64)>);

impl Covered {
    fn of(index: &LayerIndex) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for range in (0..index.chunk_count()).map(|chunk| index.chunk_range(chunk)) {
            match runs.last_mut() {
                Some((_, end)) if *end == range.start => *end = range.end,
                _ => runs.push((range.start, range.end)),
            }
        }
        Self(runs)
    }

    fn holds(&self, start: u64, end: u64) -> bool {
        let run = self.0.partition_point(|&(run_start, _)| run_start <= start);
        run.checked_sub(1).is_some_and(|run| end <= self.0[run].1)
    }
}

/// Names, and that the directories form one tree from the root: each is an entry once, of the directory it says it is in.
fn tree(index: &LayerIndex) -> Result<(), IndexError> {
    // How often each inode was named. The root counts as named once.
    let mut names = vec![0u32; index.inode_count() as usize];
    names[0] = 1;
    let mut ahead = vec![(LayerIndex::ROOT, 0)];
    let mut budgets = NameBudgets { dirents: Budget::of(index, Section::Dirents), strings: Budget::of(index, Section::Strings) };
    while let Some((number, depth)) = ahead.pop() {
        let record = index.inode_record(number);
        let check = Checked { index, section: Section::Inodes, number };
        check.require(budgets.dirents.spend(record.count), "directories share entries")?;
        check.require(depth <= limits::PATH_COMPONENTS_MAX, "directories are nested too deeply")?;
        let mut last: &[u8] = b"";
        let mut subdirectories = 0;
        for dirent_number in record.first..record.first + record.count {
            let check = Checked { index, section: Section::Dirents, number: dirent_number };
            let dirent = index.dirent_record(dirent_number);
            let name = name(index, &check, &mut budgets, &dirent)?;
            check.require(last < name, "names are out of order")?;
            last = name;
            if dirent.kind != format::DIRENT_INODE {
                continue;
            }
            let named = names.get_mut(dirent.target as usize);
            check.require(named.is_some(), "a name leads to no inode")?;
            let times = named.map_or(0, |named| std::mem::replace(named, named.saturating_add(1)));
            let target = index.inode_record(dirent.target);
            if target.mode & file_type::MASK == file_type::DIRECTORY {
                check.require(times == 0 && target.parent == number, "a directory has two parents")?;
                subdirectories += 1;
                ahead.push((dirent.target, depth + 1));
            }
        }
        check.require(record.nlink == 2 + subdirectories, "a directory's link count is wrong")?;
    }
    for (number, &named) in names.iter().enumerate() {
        let check = Checked { index, section: Section::Inodes, number: number as u32 };
        let record = index.inode_record(number as u32);
        let is_directory = record.mode & file_type::MASK == file_type::DIRECTORY;
        check.require(named > 0, "an inode has no name")?;
        check.require(is_directory || record.nlink == named, "an inode's link count is wrong")?;
    }
    Ok(())
}

struct NameBudgets {
    dirents: Budget,
    strings: Budget,
}

/// The name of an entry, and that what it stands for is well formed.
fn name<'a>(index: &'a LayerIndex, check: &Checked<'_>, budgets: &mut NameBudgets, dirent: &DirentRecord) -> Result<&'a [u8], IndexError> {
    let fits = within(index, Section::Strings, dirent.name_at, dirent.name_bytes) && budgets.strings.spend(dirent.name_bytes);
    check.require(fits, "a name is missing")?;
    let name = index.sections().string(dirent.name_at, dirent.name_bytes);
    let legal = !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && !matches!(name, b"." | b"..");
    check.require(legal && !name.contains(&b'/') && !name.contains(&0), "a name is none that a directory can hold")?;
    match dirent.kind {
        format::DIRENT_INODE => {}
        format::DIRENT_WHITEOUT => check.require(dirent.target == 0, "a whiteout leads somewhere")?,
        format::DIRENT_LOWER_LINK => {
            let fits = within(index, Section::Strings, dirent.target, 4);
            let path = index.lower_link(dirent.target);
            let fits = fits && budgets.strings.spend(path.len() as u32);
            check.require(fits && is_clean(path), "a link to a lower layer is malformed")?;
        }
        _ => check.require(false, "a name has no known kind")?,
    }
    Ok(name)
}

fn is_clean(path: &[u8]) -> bool {
    !path.is_empty() && crate::path::components(path).is_ok_and(|components| components.join(&b'/') == path)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
