// Results of system calls as numbers or errors, for threads that must not load anything more.

/** What a failed call throws: plain, so that nothing is read from the disk for it. */
export class CallError extends Error {
  readonly call: string;
  readonly errno: string;

  constructor(call: string, errno: string) {
    super(`${call}: ${errno}`);
    this.call = call;
    this.errno = errno;
  }
}

interface Errno {
  errno(): number;
  readonly os: { readonly errno: Readonly<Record<string, number>> };
}

/** Turns a negative result into CallError. */
export function unwrapCall(ffi: Errno): (call: string, result: unknown) => number {
  const names = new Map(Object.entries(ffi.os.errno).map(([name, value]) => [value, name]));
  return (call, result) => {
    const value = Number(result);
    if (value >= 0) return value;
    const errno = ffi.errno();
    throw new CallError(call, names.get(errno) ?? `errno ${errno}`);
  };
}
