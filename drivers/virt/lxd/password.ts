// Passwords of users in running guests: by the guest's own program, which knows how they are kept there. They go over its
// standard input; command lines and environments can be read by others.
import { Readable, Writable } from 'node:stream';
import type { EngineClient } from '#src/client/client.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Login } from '../driver.ts';

const NOT_FOUND = 127;
const MAX_ERROR_BYTES = 1000;
/** What lines and fields of the programs' input are parted by cannot be in it. */
const NAME = /^[^\s:]{1,64}$/u;
const PASSWORD = /^[^\r\n\0]{1,1024}$/u;

interface Attempt {
  readonly command: readonly string[];
  readonly input: string;
}

/** chpasswd is in shadow and in busybox; where busybox has been made without it, passwd reads what is not a terminal as well. */
const attempts = ({ user, password }: Login): readonly Attempt[] => [
  { command: ['chpasswd'], input: `${user}:${password}\n` },
  { command: ['passwd', user], input: `${password}\n${password}\n` },
];

/** AppError 'unsupported' when the guest has no such program, 'invalid' when it refuses. */
export async function setPassword(
  client: EngineClient,
  instance: string,
  login: Login,
  signal: AbortSignal,
): Promise<void> {
  if (!NAME.test(login.user)) throw new AppError('invalid', 'the name of the user is not valid');
  if (!PASSWORD.test(login.password)) throw new AppError('invalid', 'a password is one line of 1 to 1024 characters');
  for (const attempt of attempts(login)) {
    const { code, said } = await run(client, instance, attempt, signal);
    if (code === 0) return;
    if (code === NOT_FOUND) continue;
    throw new AppError('invalid', `${attempt.command[0]} of the guest ended with ${code}: ${said}`);
  }
  throw new AppError('unsupported', 'the guest has neither chpasswd nor passwd');
}

async function run(client: EngineClient, instance: string, { command, input }: Attempt, signal: AbortSignal) {
  let said = '';
  const stderr = new Writable({
    write(chunk, _encoding, done) {
      said = `${said}${String(chunk)}`.slice(0, MAX_ERROR_BYTES);
      done();
    },
  });
  const stdout = new Writable({ write: (_chunk, _encoding, done) => done() });
  const request = { command, environment: {}, interactive: false, user: 0, group: 0, cwd: '/' };
  const streams = { stdin: Readable.from([Buffer.from(input)]), stdout, stderr };
  const onStart = () => ({ [Symbol.dispose]() {} });
  const path = `/1.0/instances/${encodeURIComponent(instance)}`;
  const code = await client.sessions.exec(path, request, { streams, onStart, signal }).catch((error: unknown) => {
    if (messageOf(error).endsWith('Command not found')) return NOT_FOUND; // LXD fails the operation
    throw error;
  });
  return { code, said: said.trim().split('\n')[0] ?? '' };
}
