//! Where a result is written to: a file that appears whole or not at all, or whatever else the path names.
//!
//! | the path names | what happens |
//! | --- | --- |
//! | nothing, a regular file | written beside it, then renamed; a file that stood there lends its mode and owner |
//! | a symbolic link | the same for what it points to; the link stays |
//! | a device, a named pipe, an open descriptor (`/dev/stdout`, `/dev/fd/3`) | written through, in one go |
//! | `-` | standard output, in one go (`./-` is a file) |
//!
//! Invariants: what is not committed is not written; nothing that is no regular file is ever replaced or removed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Cursor, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// A result under construction: of whatever is written, nothing is seen before [`OutputFile::commit`].
///
/// A program that has the old file mapped keeps the old contents.
pub struct OutputFile(To);

enum To {
    /// Renamed when it is committed, removed when it is not.
    Regular {
        /// `None` once it is closed.
        file: Option<BufWriter<File>>,
        temporary: PathBuf,
        path: PathBuf,
        /// What stood there.
        before: Option<Box<Metadata>>,
    },
    /// Collected, since it cannot be taken back and cannot be sought.
    Through {
        sink: Box<dyn Write>,
        bytes: Cursor<Vec<u8>>,
    },
}

impl OutputFile {
    /// Starts what will stand at `path`, or go through it, when it is committed.
    ///
    /// # Errors
    /// When the path names a folder, or what it names may not be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::through(io::stdout()));
        }
        match fs::metadata(path) {
            Ok(m) if m.is_dir() => Err(io::Error::from(ErrorKind::IsADirectory)),
            Ok(m) if !m.is_file() => Ok(Self::through(OpenOptions::new().write(true).open(path)?)),
            _ => match follow(path)? {
                Some(path) => Self::regular(path),
                None => Ok(Self::through(OpenOptions::new().append(true).open(path)?)),
            },
        }
    }

    fn through(sink: impl Write + 'static) -> Self {
        let (sink, bytes) = (Box::new(sink), Cursor::default());
        OutputFile(To::Through { sink, bytes })
    }

    fn regular(path: PathBuf) -> io::Result<Self> {
        if path.file_name().is_none() {
            let message = format!("`{}` names no file", path.display());
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let before = fs::metadata(&path).ok().map(Box::new);
        // A rename asks only the folder; whoever may not write the file shall not replace it either. Other refusals, such as
        // that of a program that runs, do not stand against a new file under its name.
        if before.is_some()
            && let Err(e) = OpenOptions::new().write(true).open(&path)
            && e.kind() == ErrorKind::PermissionDenied
        {
            return Err(e);
        }
        let temporary = temporary(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(OutputFile(To::Regular {
            file: Some(BufWriter::new(file)),
            temporary,
            path,
            before,
        }))
    }

    /// Puts everything in its place; gives the number of bytes.
    ///
    /// # Errors
    /// When it cannot be written; a regular file is then as it was.
    pub fn commit(mut self) -> io::Result<u64> {
        match &mut self.0 {
            To::Regular {
                file,
                temporary,
                path,
                before,
            } => {
                let mut open = file.take().ok_or_else(closed)?;
                let whole = open.flush().and_then(|()| open.seek(SeekFrom::End(0)));
                // Closed before it is renamed: Windows refuses to rename an open file.
                drop(open);
                let placed = whole.and_then(|n| {
                    like(temporary, before.as_deref())?;
                    fs::rename(&*temporary, &*path).map(|()| n)
                });
                placed.inspect_err(|_| {
                    // The error at hand is the one worth telling.
                    let _ = fs::remove_file(&*temporary);
                })
            }
            To::Through { sink, bytes } => {
                sink.write_all(bytes.get_ref())?;
                sink.flush()?;
                Ok(bytes.get_ref().len() as u64)
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the file is already in its place")
}

/// What a chain of links ends at, whether it is there or not; `None` for an open descriptor, whose link names no path.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(to) = fs::read_link(&at) else {
            return Ok(Some(at));
        };
        let folder = at.parent().unwrap_or(Path::new("")).to_owned();
        if folder.canonicalize().is_ok_and(|f| f.starts_with("/proc")) {
            return Ok(None);
        }
        at = folder.join(to);
    }
    let message = format!("more than {MOST_LINKS} symbolic links, one behind the other");
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

/// A name beside `path` that no other process and no other thread of this one uses.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".brolga-{}-{count}.tmp", std::process::id()))
}

/// Gives a new file the mode and the owner of the one that it will replace.
fn like(new: &Path, old: Option<&Metadata>) -> io::Result<()> {
    let Some(old) = old else { return Ok(()) };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, chown};
        let now = fs::metadata(new)?;
        if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
            // Only the superuser can give files away; for others the file is theirs, as a new one is.
            let _ = chown(new, Some(old.uid()), Some(old.gid()));
        }
    }
    fs::set_permissions(new, old.permissions())
}

impl Write for OutputFile {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            To::Regular { file: Some(file), .. } => file.write(part),
            To::Regular { file: None, .. } => Err(closed()),
            To::Through { bytes, .. } => bytes.write(part),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            To::Regular { file: Some(file), .. } => file.flush(),
            _ => Ok(()),
        }
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match &mut self.0 {
            To::Regular { file: Some(file), .. } => file.seek(position),
            To::Regular { file: None, .. } => Err(closed()),
            To::Through { bytes, .. } => bytes.seek(position),
        }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let To::Regular { file, temporary, .. } = &mut self.0
            && let Some(file) = file.take()
        {
            // Without `into_parts` the buffer would be written out once more.
            let (file, _) = file.into_parts();
            drop(file);
            // Nothing can be told from a destructor; at worst a hidden temporary file stays.
            let _ = fs::remove_file(&*temporary);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    /// A folder of this test's own, removed when it ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("brolga-file-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
        fn count(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write(path: &Path, text: &str) -> io::Result<u64> {
        let mut file = OutputFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    }

    #[test]
    fn a_file_that_stood_there_lends_its_mode() {
        let folder = Folder::new("mode");
        let path = folder.at("out");
        assert_eq!(write(&path, "one").unwrap(), 3);
        let new = fs::metadata(&path).unwrap().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "two").unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640);
        assert_ne!(new & 0o7777, 0o640, "the test shows something");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(folder.count(), 1);
    }

    #[test]
    fn links_are_followed_and_stay() {
        let folder = Folder::new("links");
        fs::create_dir(folder.at("elsewhere")).unwrap();
        let target = folder.at("elsewhere/out");
        symlink("elsewhere/out", folder.at("first")).unwrap();
        symlink("first", folder.at("second")).unwrap();
        // The first time the link points to nothing.
        for text in ["one", "two"] {
            write(&folder.at("second"), text).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        }
        for link in ["first", "second"] {
            assert!(fs::symlink_metadata(folder.at(link)).unwrap().is_symlink());
        }
        assert_eq!(fs::read_dir(folder.at("elsewhere")).unwrap().count(), 1);
        symlink("circle", folder.at("circle")).unwrap();
        assert!(write(&folder.at("circle"), "three").is_err());
        assert!(write(&folder.at("elsewhere"), "three").is_err(), "a folder is no file");
    }

    #[test]
    fn pipes_are_written_through() {
        let folder = Folder::new("pipes");
        let path = folder.at("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read_to_string(path).unwrap()
        });
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"abc").unwrap();
        // As an artefact's header and an archive's index are: afterwards.
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"A").unwrap();
        assert_eq!(file.commit().unwrap(), 3);
        assert_eq!(reader.join().unwrap(), "Abc");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(folder.count(), 1);
    }

    /// Only the superuser can make a device to try this on.
    #[test]
    fn devices_are_written_through() {
        let folder = Folder::new("devices");
        let path = folder.at("null");
        let made = Command::new("mknod").arg(&path).args(["c", "1", "3"]).output().unwrap();
        if !made.status.success() || write_to_device(&path).is_err() {
            return;
        }
        symlink("null", folder.at("link")).unwrap();
        for name in ["null", "link"] {
            assert_eq!(write(&folder.at(name), "nothing").unwrap(), 7);
            assert!(fs::metadata(&path).unwrap().file_type().is_char_device());
        }
        assert_eq!(folder.count(), 2);
    }

    /// A volume may be mounted without devices.
    fn write_to_device(path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all(b"x")
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn open_descriptors_are_written_through() {
        use std::os::fd::AsRawFd;
        let folder = Folder::new("descriptors");
        let path = folder.at("out");
        let mut open = File::create(&path).unwrap();
        open.write_all(b"first, ").unwrap();
        write(Path::new(&format!("/dev/fd/{}", open.as_raw_fd())), "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first, second");
        assert_eq!(open.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    }
}
