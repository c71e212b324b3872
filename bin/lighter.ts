// Start-up of the client: environment, standard streams, signals, exit code.
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { runCli } from '#src/cli/program.ts';
import type { Doctor } from '#src/lib/finding.ts';
import { runEditor } from '#src/host/editor.ts';
import { interruptSignal, screen } from './lighter-screen.ts';

const { env } = process;
const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  version: string;
};

// `lighter list | head` is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

/** Resolves when all that was written is out, or nobody reads it. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableLength === 0) return resolve();
    stream.once('error', () => resolve());
    stream.write('', () => resolve());
  });
}

const stateFolder = env['LIGHTER_DIR'] ?? '/var/lib/lighter';

/** Loaded when it is wanted: everybody else would wait for it. */
async function doctor(): Promise<Doctor> {
  const [{ HostDoctor }, { LinuxHost }] = await Promise.all([
    import('#src/host/doctor/doctor.ts'),
    import('#src/host/linux-host.ts'),
  ]);
  return new HostDoctor(new LinuxHost(), stateFolder);
}

const code = await runCli(process.argv.slice(2), {
  out: (line) => void process.stdout.write(line),
  err: (line) => void process.stderr.write(line),
  readInput: () => text(process.stdin),
  isInteractive: process.stderr.isTTY,
  signal: interruptSignal,
  version,
  socketPath: env['LIGHTER_SOCKET'] ?? join(stateFolder, 'unix.socket'),
  configDirectory: env['LIGHTER_CONF'] ?? join(env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config'), 'lighter'),
  streams: process,
  screen,
  edit: (file) => runEditor(env['VISUAL'] ?? env['EDITOR'] ?? 'vi', file),
  doctor,
});
// What a slow reader has not taken yet waits in this process. Standard input may be open for ever: hence the exit.
await Promise.all([process.stdout, process.stderr].map(flushed));
process.exit(code);
