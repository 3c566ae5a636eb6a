//! The driver API behind safe functions: one primary context, its modules, memory and default stream.
//!
//! Invariant: a handle is made by a call that succeeded, is used with its device's context current, and is given back once,
//! when it is dropped, before the context is released. CUDA's context is a property of the thread, so every way in enters
//! it anew.

use super::Error;
use cudarc::driver::sys::{self, CUdevice_attribute, CUjit_option, CUresult};
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;

/// The driver's word on a call.
fn check(result: CUresult, what: impl FnOnce() -> String) -> Result<(), Error> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = ptr::null();
    // SAFETY: the driver fills in a static string, or leaves the pointer null for an error that it does not know.
    let words = unsafe {
        let _ = sys::cuGetErrorString(result, &mut text);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(Error::Driver {
        what: what(),
        why: words.unwrap_or_else(|| format!("{result:?}")),
    })
}

/// A device's primary context, retained once.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: the driver's functions may be called from any thread; the handles are not written after they are made.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context is retained for as long as `self` lives.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, || {
            "entering the context".into()
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context was retained once, and everything that was made in it is gone: it all holds an `Arc` of this.
        // A failure leaves nothing to be done.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A GPU.
pub(super) struct Device(Arc<Context>);

impl Device {
    /// The device of a number, its context current in this thread.
    pub fn new(ordinal: u32) -> Result<Device, Error> {
        // SAFETY: this only tries to load the driver's library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoDriver);
        }
        let (mut count, mut device, mut context) = (0, 0, ptr::null_mut());
        // SAFETY: the library is there; results go to variables of the right types; the device is one that the driver gave.
        unsafe {
            check(sys::cuInit(0), || "starting the driver".into())?;
            check(sys::cuDeviceGetCount(&mut count), || "counting devices".into())?;
            if i64::from(ordinal) >= i64::from(count) {
                return Err(Error::NoDevice {
                    ordinal,
                    count: count.max(0) as u32,
                });
            }
            check(sys::cuDeviceGet(&mut device, ordinal as i32), || {
                "opening the device".into()
            })?;
            check(sys::cuDevicePrimaryCtxRetain(&mut context, device), || {
                "making a context".into()
            })?;
        }
        let context = Context { device, context };
        context.enter()?;
        Ok(Device(Arc::new(context)))
    }

    /// Major and minor compute capability.
    pub fn capability(&self) -> Result<(i32, i32), Error> {
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: the result goes to a variable of the right type; the device is one that the driver gave.
            let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.0.device) };
            check(result, || "asking for the compute capability".into()).map(|()| value)
        };
        let major = get(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok((
            major,
            get(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// Makes the context the thread's.
    pub fn enter(&self) -> Result<(), Error> {
        self.0.enter()
    }

    /// Assembles a module of PTX text.
    pub fn module(&self, text: &str, name: &str) -> Result<Module, Error> {
        let refused = |why: String| Error::Driver {
            what: format!("assembling the kernels of `{name}`"),
            why,
        };
        let text = CString::new(text).map_err(|_| refused("the text contains a zero byte".into()))?;
        let mut log = vec![0u8; 8 << 10];
        let mut options = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes numbers as pointers here.
        let mut values = [
            log.as_mut_ptr().cast::<c_void>(),
            ptr::without_provenance_mut(log.len()),
        ];
        let mut module = ptr::null_mut();
        // SAFETY: the text ends in a zero; the two options' values are a buffer and its size, alive during the call.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        check(result, || format!("assembling the kernels of `{name}`")).map_err(|e| {
            let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
            match (e, String::from_utf8_lossy(&log[..end]).trim()) {
                (Error::Driver { why, .. }, log) if !log.is_empty() => refused(format!("{why}: {log}")),
                (e, _) => e,
            }
        })?;
        Ok(Module {
            module,
            context: self.0.clone(),
        })
    }

    /// Memory on the device; at least one byte, so that every buffer has an address.
    pub fn allocate(&self, bytes: u64) -> Result<Memory, Error> {
        let mut address = 0;
        let size = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: the result goes to a variable of the right type; the context is current.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, size) };
        check(result, || format!("allocating {bytes} bytes"))?;
        Ok(Memory {
            address,
            bytes,
            context: self.0.clone(),
        })
    }

    /// Copies bytes to an address of the device that has room for them.
    pub fn copy_in(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        copy_in(to, bytes)
    }

    /// Copies bytes from an address of the device that has as many.
    pub fn copy_out(&self, bytes: &mut [u8], from: u64) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the destination is a slice of that length; the caller vouches for the source.
        let result = unsafe { sys::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), from, bytes.len()) };
        check(result, || format!("copying {} bytes from the device", bytes.len()))
    }

    /// Copies between two places of the device that have as many bytes, in the order of the steps.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller vouches for both addresses; the default stream is null.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, ptr::null_mut()) };
        check(result, || format!("copying {bytes} bytes on the device"))
    }

    /// Launches a kernel on 64-bit parameters.
    pub fn launch(
        &self,
        function: &Function,
        [gx, gy, gz]: [u32; 3],
        [bx, by, bz]: [u32; 3],
        mut params: Vec<u64>,
        node: &str,
    ) -> Result<(), Error> {
        let mut pointers: Vec<*mut c_void> = params.iter_mut().map(|p| ptr::from_mut(p).cast()).collect();
        // SAFETY: the function is one of a loaded module; it takes as many 64-bit parameters (the caller of `Gpu::load`
        // vouches for it), which the driver copies before the call returns.
        let result = unsafe {
            sys::cuLaunchKernel(
                function.0,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                0,
                ptr::null_mut(),
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check(result, || format!("launching a kernel for node `{node}`"))
    }

    /// Waits until everything that was begun has ended.
    pub fn wait(&self) -> Result<(), Error> {
        // SAFETY: the context is current.
        check(unsafe { sys::cuCtxSynchronize() }, || "running the kernels".into())
    }
}

fn copy_in(to: u64, bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    // SAFETY: the source is a slice of that length; the caller vouches for the destination.
    let result = unsafe { sys::cuMemcpyHtoD_v2(to, bytes.as_ptr().cast(), bytes.len()) };
    check(result, || format!("copying {} bytes to the device", bytes.len()))
}

/// Assembled kernels.
pub(super) struct Module {
    module: sys::CUmodule,
    context: Arc<Context>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Module {}
// SAFETY: as for `Context`.
unsafe impl Sync for Module {}

impl Module {
    /// An entry.
    pub fn function(&self, name: &str) -> Result<Function, Error> {
        let mut function = ptr::null_mut();
        let text = CString::new(name).map_err(|_| Error::Driver {
            what: format!("looking up the entry {name:?}"),
            why: "the name contains a zero byte".into(),
        })?;
        // SAFETY: the module is loaded; the name ends in a zero.
        let result = unsafe { sys::cuModuleGetFunction(&mut function, self.module, text.as_ptr()) };
        check(result, || format!("looking up the entry `{name}`"))?;
        Ok(Function(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: the module was loaded once in this context. A failure leaves nothing to be done.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// An entry of a module; it lives as long as the module.
pub(super) struct Function(sys::CUfunction);

// SAFETY: as for `Context`.
unsafe impl Send for Function {}
// SAFETY: as for `Context`.
unsafe impl Sync for Function {}

/// Memory on the device.
pub(super) struct Memory {
    address: u64,
    bytes: u64,
    context: Arc<Context>,
}

impl Memory {
    /// Its address, aligned to 256.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Fills it.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        assert_eq!(bytes.len() as u64, self.bytes, "the plan was checked");
        copy_in(self.address, bytes)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: the memory was allocated once in this context, and the runs that used it have ended. A failure
            // leaves nothing to be done.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}
