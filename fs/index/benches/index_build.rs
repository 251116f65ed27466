//! What a streaming pass costs beside decoding alone: a gzip layer of real files, inflated by the same library with nothing else to do,
//! and passed through with everything that makes the index. The two are comparable in one run only.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::ffi::c_int;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use libz_rs_sys as z;
use snap_digest::Digest;
use snap_index::{Compression, DataSink, PassOptions, stream_layer};

#[path = "../tests/blobs/mod.rs"]
mod blobs;
#[path = "../tests/tar_writer/mod.rs"]
mod tar_writer;

const TAR_BYTES: usize = 160 << 20;
/// Folders of most systems that hold many files of all kinds.
const FOLDERS: [&str; 3] = ["/usr/lib/python3", "/usr/share", "/usr/lib"];

struct DataFile(File);

impl DataSink for DataFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// Where decoded bytes end when only the index is wanted.
struct Dropped;

impl DataSink for Dropped {
    fn write_at(&mut self, _: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
}

/// Adds the files under `folder` until the tar is long enough.
fn gather(folder: &Path, tar: &mut tar_writer::TarWriter) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if tar.bytes.len() >= TAR_BYTES {
            return;
        }
        if metadata.is_dir() {
            gather(&path, tar);
        } else if metadata.is_file() && metadata.len() < 16 << 20 {
            let mut data = Vec::new();
            if File::open(&path).and_then(|mut file| file.read_to_end(&mut data)).is_ok() {
                tar.pax(&[("path", path.as_os_str().as_encoded_bytes())]).file("file", &data);
            }
        }
    }
}

fn layer() -> Vec<u8> {
    let mut tar = tar_writer::TarWriter::default();
    FOLDERS.iter().for_each(|folder| gather(Path::new(folder), &mut tar));
    let missing = TAR_BYTES.saturating_sub(tar.bytes.len());
    if missing > 0 {
        tar.file("generated", &blobs::mixed(1, missing));
    }
    tar.end()
}

/// Inflates one member into one buffer after the other; gives the length.
fn inflate(blob: &[u8], buffer: &mut [u8]) -> usize {
    let mut stream = Box::new(z::z_stream::default());
    let mut total = 0;
    // SAFETY: the stream is initialised before it is used, does not move and is ended once; input and output are slices that outlive
    // the calls, and their lengths fit 32 bits.
    unsafe {
        assert_eq!(z::inflateInit2_(&mut *stream, 15 + 16, z::zlibVersion(), size_of::<z::z_stream>() as c_int), z::Z_OK);
        (stream.next_in, stream.avail_in) = (blob.as_ptr(), blob.len() as u32);
        loop {
            (stream.next_out, stream.avail_out) = (buffer.as_mut_ptr(), buffer.len() as u32);
            let code = z::inflate(&mut *stream, z::Z_NO_FLUSH);
            total += buffer.len() - stream.avail_out as usize;
            black_box(&buffer);
            match code {
                z::Z_STREAM_END => break,
                code => assert_eq!(code, z::Z_OK),
            }
        }
        z::inflateEnd(&mut *stream);
    }
    total
}

fn index_build(criterion: &mut Criterion) {
    let tar = layer();
    let blob = blobs::gzip(&tar, 6);
    let digest = Digest::of(&blob);
    eprintln!("{} bytes of tar, {} of gzip", tar.len(), blob.len());
    let folder = tempfile::tempdir().unwrap();
    let mut sink = DataFile(File::create(folder.path().join("data")).unwrap());
    let mut group = criterion.benchmark_group("index_build");
    group.throughput(Throughput::Bytes(tar.len() as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    let mut buffer = vec![0; 256 * 1024];
    group.bench_function("plain inflate", |bencher| bencher.iter(|| assert_eq!(inflate(&blob, &mut buffer), tar.len())));
    let mut bench = |name: &str, sink: &mut dyn DataSink| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let options = PassOptions::default();
                let layer = stream_layer(Compression::Gzip, &digest, blob.len() as u64, &mut &*blob, sink, &options).unwrap();
                assert_eq!(layer.data_bytes, tar.len() as u64);
                layer
            });
        });
    };
    bench("build index", &mut Dropped);
    bench("build index and write data", &mut sink);
    group.finish();
}

criterion_group!(benches, index_build);
criterion_main!(benches);
