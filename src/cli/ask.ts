// Questions to the user.
import { createInterface } from 'node:readline/promises';
import { AppError } from '#src/lib/errors.ts';
import type { Cli } from './cli.ts';

/** One line. AppError 'invalid' when standard input ends first. */
export async function ask(cli: Cli, question: string): Promise<string> {
  const { stdin } = cli.terminal.streams;
  cli.terminal.err(question);
  const lines = createInterface({ input: stdin, terminal: false });
  try {
    const { promise: ended, reject } = Promise.withResolvers<never>();
    lines.once('close', () => reject(new AppError('invalid', 'No answer: standard input has ended')));
    return await Promise.race([lines.question('', { signal: cli.signal }), ended]);
  } finally {
    lines.close();
  }
}

/** Only "yes" and "y" are a yes. */
export async function confirm(cli: Cli, question: string): Promise<boolean> {
  return /^y(?:es)?$/i.test((await ask(cli, `${question} (yes/no): `)).trim());
}

/** What is typed is not shown, where there is a screen. */
export async function askSecret(cli: Cli, question: string): Promise<string> {
  const { screen, streams } = cli.terminal;
  if (!screen.isInput) return ask(cli, question);
  cli.terminal.err(question);
  using _raw = screen.raw();
  let text = '';
  for await (const chunk of streams.stdin) {
    for (const key of String(chunk)) {
      if (key === '\r' || key === '\n') {
        cli.terminal.err('\n');
        return text;
      }
      if (key === '\u0003') throw new AppError('invalid', 'Interrupted');
      text = key === '\u007f' || key === '\b' ? text.slice(0, -1) : text + key;
    }
  }
  throw new AppError('invalid', 'No answer: standard input has ended');
}
