// Calls of liblxc's attach: the process that makes them is forked, so it is the attach server's and never the daemon's.
import { readdirSync } from 'node:fs';
import koffi from 'koffi';
import { AppError } from '#src/lib/errors.ts';
import { readKernelFile } from '../kernel-files.ts';
import type { AttachRequest } from './messages.ts';

/** liblxc works with buffers of several PATH_MAX on its stack. */
const STACK_BYTES = 1 << 20;
const ATTACH_DEFAULT = 0xffff;
const CLEAR_ENVIRONMENT = 1;
const WNOHANG = 1;
/** "Detect it", in fields of several types. */
const AUTOMATIC = -1;
const NO_FD = -9;
/**
 * Places in struct lxc_container, which is extended at its end only: seven private fields, four public ones, then functions. Load
 * is the 7th of them, attach the 37th.
 */
const FUNCTIONS_AT = 80;
const LOAD_CONFIG_AT = FUNCTIONS_AT + 6 * 8;
const ATTACH_AT = FUNCTIONS_AT + 36 * 8;
const RTLD_LAZY = 1;
const FIRST_OTHER_FD = 3;
const LAST_FD = 0xffffffff;
const CLOSE_RANGE_CLOEXEC = 4;

interface Library {
  readonly open: (request: AttachRequest) => unknown;
  readonly put: (container: unknown) => void;
  readonly attach: (container: unknown, command: unknown, options: unknown) => Promise<number>;
}

koffi.config({ ...koffi.config(), async_stack_size: STACK_BYTES });
const libc = koffi.load('libc.so.6');
const waitpidCall = libc.func('int waitpid(int pid, _Out_ int *status, int options)');
const killCall = libc.func('int kill(int pid, int signal)');
const closeRangeCall = libc.func('int close_range(uint first, uint last, int flags)');
const dlopenCall = libc.func('void *dlopen(str name, int flags)');
const dlsymCall = libc.func('void *dlsym(void *library, str name)');

const Options = koffi.struct('lxc_attach_options', {
  attach_flags: 'int',
  namespaces: 'int',
  personality: 'long',
  initial_cwd: 'char *',
  uid: 'uint',
  gid: 'uint',
  env_policy: 'int',
  extra_env_vars: 'char **',
  extra_keep_env: 'char **',
  stdin_fd: 'int',
  stdout_fd: 'int',
  stderr_fd: 'int',
  log_fd: 'int',
  lsm_label: 'char *',
  groups_size: 'size_t',
  groups_list: 'void *',
});
const Command = koffi.struct('lxc_attach_command', { program: 'char *', argv: 'char **' });
const LoadConfig = koffi.proto('bool lxc_load_config(void *container, str file)');
const Attach = koffi.proto('int lxc_attach(void *container, void *run, void *command, void *options, _Out_ int *pid)');

let library: Library | undefined;

function load(): Library {
  const lxc = koffi.load('liblxc.so.1');
  const create = lxc.func('void *lxc_container_new(str name, str path)');
  const put = lxc.func('int lxc_container_put(void *container)');
  // liblxc's own function that executes a program: what runs in the fork must not be JavaScript.
  const runCommand: unknown = dlsymCall(dlopenCall('liblxc.so.1', RTLD_LAZY), 'lxc_attach_run_command');
  const method = (container: unknown, at: number, type: ReturnType<typeof koffi.proto>) =>
    koffi.decode(koffi.decode(container, at, 'void *'), type) as ReturnType<typeof libc.func>;
  return {
    open: ({ name, containersPath, configPath }) => {
      const container: unknown = create(name, containersPath);
      if (container === null) throw new AppError('internal', `liblxc does not open container ${name}`);
      if (method(container, LOAD_CONFIG_AT, LoadConfig)(container, configPath) === true) return container;
      put(container);
      throw new AppError('internal', `liblxc does not read ${configPath}`);
    },
    put: (container) => void put(container),
    attach: (container, command, options) => {
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      const pid = [0];
      method(container, ATTACH_AT, Attach).async(container, runCommand, command, options, pid, done);
      return promise;

      function done(error: Error | null, result: number): void {
        if (error) reject(error);
        else if (result < 0) reject(new AppError('internal', 'Failed to attach to the container'));
        else resolve(pid[0] ?? 0);
      }
    },
  };
}

/** What this process was given by its parents is not for containers. */
export function keepDescriptors(): void {
  closeRangeCall(FIRST_OTHER_FD, LAST_FD, CLOSE_RANGE_CLOEXEC);
}

/** Resolves with the pid of the new process, a child of this one, when it is in the container. */
export async function attach(request: AttachRequest, fds: readonly [number, number, number]): Promise<number> {
  library ??= load();
  const container = library.open(request);
  const options: unknown = koffi.alloc(Options, 1);
  const command: unknown = koffi.alloc(Command, 1);
  try {
    koffi.encode(options, Options, {
      attach_flags: ATTACH_DEFAULT,
      namespaces: AUTOMATIC,
      personality: AUTOMATIC,
      initial_cwd: request.cwd,
      uid: request.uid,
      gid: request.gid,
      env_policy: CLEAR_ENVIRONMENT,
      extra_env_vars: [...request.environment, null],
      extra_keep_env: null,
      stdin_fd: fds[0],
      stdout_fd: fds[1],
      stderr_fd: fds[2],
      log_fd: NO_FD,
      lsm_label: null,
      groups_size: 0,
      groups_list: null,
    });
    koffi.encode(command, Command, { program: request.argv[0], argv: [...request.argv, null] });
    return await library.attach(container, command, options);
  } finally {
    koffi.free(options);
    koffi.free(command);
    library.put(container);
  }
}

/** The status of a child that has ended, which is gone then; undefined while it runs. */
export function reap(pid: number): number | undefined {
  const status = [0];
  const result = Number(waitpidCall(pid, status, WNOHANG));
  return result === 0 ? undefined : (status[0] ?? 0);
}

/** For a child that is not reaped yet: its pid is nobody else's. */
export function killChild(pid: number, signal: number): void {
  killCall(pid, signal);
}

/** Pids of all children of this process, whichever of its threads has made them. */
export function ownChildren(): readonly number[] {
  return readdirSync('/proc/self/task').flatMap((thread) =>
    (readKernelFile(`/proc/self/task/${thread}/children`) ?? '').split(' ').filter(Boolean).map(Number),
  );
}
