//! What programs do all day, timed on two trees of the same files: usually a mounted image and the same image unpacked.
//!
//! `hot_paths MOUNTED UNPACKED [ROUNDS]`, as root. Prints the median microseconds per operation of both, first (caches dropped) and second
//! time, and their ratio.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SMALL_FILES_MAX: usize = 10_000;
const SMALL_FILE_BYTES_MAX: u64 = 16 * 1024;
const ABSENT_NAMES: usize = 10_000;

type Failure = Box<dyn std::error::Error>;

/// The paths that the operations work on.
struct Paths {
    root: PathBuf,
    all: Vec<PathBuf>,
    small: Vec<PathBuf>,
    largest: PathBuf,
}

fn list(root: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let is_directory = entry.file_type()?.is_dir();
        all.push(entry.path());
        if is_directory {
            list(&entry.path(), all)?;
        }
    }
    Ok(())
}

impl Paths {
    fn of(root: &Path) -> Result<Self, Failure> {
        let mut all = Vec::new();
        list(root, &mut all)?;
        let mut files = Vec::new();
        for path in &all {
            let metadata = path.symlink_metadata()?;
            if metadata.is_file() {
                files.push((metadata.len(), path.clone()));
            }
        }
        let largest = files.iter().max().ok_or("there is no file")?.1.clone();
        let small = files.into_iter().filter(|(bytes, _)| *bytes <= SMALL_FILE_BYTES_MAX).map(|(_, path)| path).take(SMALL_FILES_MAX);
        Ok(Self { root: root.to_owned(), small: small.collect(), all, largest })
    }

    /// Microseconds for each operation, and how many times it was done.
    fn run(&self, operation: Operation) -> Result<f64, Failure> {
        let started = Instant::now();
        let count = match operation {
            Operation::Walk => {
                let mut found = Vec::with_capacity(self.all.len());
                list(&self.root, &mut found)?;
                found.len()
            }
            Operation::Stat => {
                for path in &self.all {
                    std::hint::black_box(path.symlink_metadata()?);
                }
                self.all.len()
            }
            Operation::OpenReadClose => {
                let mut buffer = Vec::new();
                for path in &self.small {
                    buffer.clear();
                    File::open(path)?.read_to_end(&mut buffer)?;
                }
                self.small.len()
            }
            Operation::Absent => {
                let dirs: Vec<&Path> = self.all.iter().filter_map(|path| path.parent()).collect();
                for number in 0..ABSENT_NAMES {
                    let path = dirs[number % dirs.len()].join(format!("absent-{number}"));
                    if path.exists() {
                        return Err(format!("{} exists", path.display()).into());
                    }
                }
                ABSENT_NAMES
            }
            Operation::LargestFile => {
                let mut buffer = vec![0; 1 << 20];
                let mut file = File::open(&self.largest)?;
                let mut mebibytes = 0;
                while file.read(&mut buffer)? > 0 {
                    mebibytes += 1;
                }
                mebibytes
            }
        };
        Ok(started.elapsed().as_secs_f64() * 1e6 / count as f64)
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Walk,
    Stat,
    OpenReadClose,
    Absent,
    LargestFile,
}

const OPERATIONS: [(Operation, &str); 5] = [
    (Operation::Walk, "walk, per entry"),
    (Operation::Stat, "stat"),
    (Operation::OpenReadClose, "open, read, close"),
    (Operation::Absent, "name that is absent"),
    (Operation::LargestFile, "largest file, per MiB"),
];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(mounted), Some(unpacked)) = (arguments.first(), arguments.get(1)) else {
        return Err("usage: hot_paths MOUNTED UNPACKED [ROUNDS]".into());
    };
    let rounds: usize = arguments.get(2).map_or(Ok(5), |text| text.parse())?;
    let trees = [Paths::of(Path::new(mounted))?, Paths::of(Path::new(unpacked))?];
    println!("{} entries, {} small files; {rounds} rounds, medians; microseconds", trees[0].all.len(), trees[0].small.len());
    println!("{:24} {:>24} {:>24}", "", "first: mounted/unpacked", "second: mounted/unpacked");
    for (operation, name) in OPERATIONS {
        let mut times = [[vec![], vec![]], [vec![], vec![]]];
        for _ in 0..rounds {
            for (tree, times) in trees.iter().zip(&mut times) {
                nix::unistd::sync();
                std::fs::write("/proc/sys/vm/drop_caches", "3")?;
                for time in times.iter_mut() {
                    time.push(tree.run(operation)?);
                }
            }
        }
        let [[mounted_first, mounted_second], [unpacked_first, unpacked_second]] = times.map(|tree| tree.map(median));
        println!(
            "{name:24} {mounted_first:9.2}/{unpacked_first:8.2} {:4.1}x {mounted_second:9.2}/{unpacked_second:8.2} {:4.1}x",
            mounted_first / unpacked_first,
            mounted_second / unpacked_second
        );
    }
    Ok(())
}
