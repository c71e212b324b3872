// A process in a running container: its streams, made here, and the attach server that starts it with them.
import { closeSync, constants, fchownSync, fstatSync, readFileSync } from 'node:fs';
import { pid as ownPid } from 'node:process';
import type { Duplex } from 'node:stream';
import type { AttachedProcess, Attacher } from '#src/host/attach/attacher.ts';
import type { StreamSource } from '#src/host/attach/messages.ts';
import { openTerminal } from '#src/host/contained/terminal.ts';
import { endWhenDrained, pipeFrom, pipeTo, terminalStream } from '#src/host/descriptors.ts';
import { setWindowSize } from '#src/host/kernel-descriptors.ts';
import type { RuntimeCommand, RuntimeContainer, RuntimeProcess, TerminalSize } from '../driver.ts';

const READ = constants.O_RDONLY | constants.O_NOCTTY;
const WRITE = constants.O_WRONLY | constants.O_NOCTTY;
const BOTH = constants.O_RDWR | constants.O_NOCTTY;
const NULL_IN: StreamSource = { path: '/dev/null', flags: READ };
const NULL_OUT: StreamSource = { path: '/dev/null', flags: WRITE };

export interface AttachJob {
  readonly container: RuntimeContainer;
  readonly containersPath: string;
  readonly initPid: number;
  readonly command: RuntimeCommand;
}

/** Our ends, and what the attach server opens. */
interface Streams {
  readonly sources: readonly [StreamSource, StreamSource, StreamSource];
  readonly stdin?: Duplex;
  readonly stdout?: Duplex;
  readonly stderr?: Duplex;
  /** Of our ends that are read: to be ended when the process has. */
  readonly outputs: readonly (readonly [Duplex, number])[];
  /** Their ends as they are here: closed when the process has them. */
  readonly others: readonly number[];
  readonly terminal?: number;
}

export async function attachProcess(attacher: Attacher, job: AttachJob, signal: AbortSignal): Promise<RuntimeProcess> {
  const { container, containersPath, command } = job;
  const streams = await openStreams(job);
  try {
    signal.throwIfAborted();
    const attached = await attacher.attach({
      name: container.name,
      containersPath,
      configPath: container.configPath,
      argv: command.argv,
      environment: Object.entries(command.environment).map(([key, value]) => `${key}=${value}`),
      cwd: command.cwd,
      uid: command.uid,
      gid: command.gid,
      streams: streams.sources,
    });
    return running(streams, attached);
  } catch (error) {
    for (const stream of [streams.stdin, streams.stdout, streams.stderr]) stream?.destroy();
    throw error;
  } finally {
    for (const fd of streams.others) closeSync(fd);
  }
}

function running({ stdin, stdout, stderr, outputs, terminal }: Streams, attached: AttachedProcess): RuntimeProcess {
  const endOutputs = (): void => {
    for (const [stream, fd] of outputs) endWhenDrained(stream, fd);
  };
  const exited = attached.exited.then(exitCodeOf).finally(endOutputs);
  exited.catch(() => undefined); // whoever awaits it gets the error
  return {
    ...(stdin && { stdin }),
    ...(stdout && { stdout }),
    ...(stderr && { stderr }),
    exited,
    kill: (signal) => attached.kill(signal),
    resize: (size) => {
      if (terminal !== undefined && stdout?.destroyed === false) setWindowSize(terminal, size);
    },
  };
}

/** The low 7 bits of a wait status are the signal, the next byte is the exit code. */
function exitCodeOf(status: number): number {
  const signal = status & 0x7f;
  return signal === 0 ? (status >> 8) & 0xff : 128 + signal;
}

function source(fd: number, flags: number): StreamSource {
  return { path: `/proc/${ownPid}/fd/${fd}`, flags };
}

async function openStreams({ command: { streams: wanted, uid }, initPid }: AttachJob): Promise<Streams> {
  switch (wanted.kind) {
    case 'pipes':
      return openPipes();
    case 'terminal':
      return openTerminalStreams(initPid, uid, wanted.size);
    case 'files': {
      const file = (path: string | undefined) =>
        path === undefined ? NULL_OUT : { path, flags: WRITE | constants.O_APPEND };
      return { sources: [NULL_IN, file(wanted.stdout), file(wanted.stderr)], outputs: [], others: [] };
    }
  }
}

function openPipes(): Streams {
  const [stdin, stdout, stderr] = [pipeTo(), pipeFrom(), pipeFrom()] as const;
  return {
    sources: [source(stdin.other, READ), source(stdout.other, WRITE), source(stderr.other, WRITE)],
    stdin: stdin.stream,
    stdout: stdout.stream,
    stderr: stderr.stream,
    outputs: [stdout, stderr].map(({ stream, fd }) => [stream, fd] as const),
    others: [stdin, stdout, stderr].map(({ other }) => other),
  };
}

async function openTerminalStreams(initPid: number, uid: number, size: TerminalSize | undefined): Promise<Streams> {
  const { master, peer } = await openTerminal(initPid);
  fchownSync(peer, hostUid(readFileSync(`/proc/${initPid}/uid_map`, 'utf8'), uid), fstatSync(peer).gid);
  if (size) setWindowSize(master, size);
  const stream = terminalStream(master);
  const terminal = source(peer, BOTH);
  return {
    sources: [terminal, terminal, terminal],
    stdin: stream,
    stdout: stream,
    outputs: [[stream, master]],
    others: [peer],
    terminal: master,
  };
}

/** Lines of a uid_map: the first id inside, the first outside, how many. An id that is not mapped is nobody's: root keeps it. */
function hostUid(map: string, uid: number): number {
  for (const line of map.trim().split('\n')) {
    const [inside = 0, outside = 0, size = 0] = line.trim().split(/\s+/).map(Number);
    if (uid >= inside && uid < inside + size) return outside + uid - inside;
  }
  return 0;
}
