// Lines for the AppArmor profile of a container. liblxc has the whole profile parsed at the start, and says nothing of what is wrong in it.
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';

const LIMIT_MS = 30_000;

/** As they are written into the configuration. */
export function apparmorRules(text: string | undefined): readonly string[] {
  return (text ?? '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** AppError 'invalid' with the parser's words when these lines are no rules. Nothing is loaded. */
export async function checkRules(host: Pick<Host, 'run'>, rules: readonly string[], signal: AbortSignal) {
  if (rules.length === 0) return;
  const profile = ['#include <tunables/global>', 'profile check {', ...rules, '}', ''].join('\n');
  try {
    await host.run(['apparmor_parser', '--skip-kernel-load', '--skip-cache', '--quiet'], {
      input: profile,
      signal,
      timeoutMs: LIMIT_MS,
    });
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    const said = cause.stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
    throw new AppError('invalid', `Invalid raw.apparmor: ${said === '' ? cause.message : said}`, { cause });
  }
}
