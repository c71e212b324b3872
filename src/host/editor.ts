// The user's editor, on the user's terminal.
import { spawn } from 'node:child_process';
import { AppError } from '#src/lib/errors.ts';

/** `command` may have options of its own, divided by spaces. Rejects unless it exits with 0. */
export async function runEditor(command: string, file: string): Promise<void> {
  const [program = '', ...options] = command.split(/\s+/).filter((word) => word !== '');
  const child = spawn(program, [...options, file], { stdio: 'inherit' });
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once('error', (cause) => reject(new AppError('unavailable', `Cannot run the editor "${command}"`, { cause })));
  child.once('close', resolve);
  const code = await promise;
  if (code !== 0) throw new AppError('internal', `The editor "${command}" ended with ${code ?? 'a signal'}`);
}
