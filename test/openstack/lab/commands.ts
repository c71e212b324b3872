// Runs a command to its end; used by the lab only (the product goes through src/host).
import { execFile, type ExecFileOptions } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Debian's own Python and tools, not another interpreter earlier in PATH. */
export const SYSTEM_ENV: Readonly<Record<string, string>> = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C.UTF-8',
  LANG: 'C.UTF-8',
  PYTHONDONTWRITEBYTECODE: '1',
  HOME: '/root',
};

/** What a failed command said: the lines that name an error (a Python tool prints a whole statement after it), and the end. */
function gist(stdout: string, stderr: string): string {
  const said = `${stdout}\n${stderr}`.trim();
  const errors = said
    .split('\n')
    .filter((line) => /^\s*(\w+\.)*\w*(Error|Exception)\b.*: /.test(line) || /\(\d{4}, /.test(line));
  return [...new Set(errors.map((line) => line.trim().slice(0, 500))), said.slice(-1500)].join('\n');
}

export async function run(argv: readonly [string, ...string[]], options: ExecFileOptions = {}): Promise<string> {
  const [file, ...args] = argv;
  try {
    const { stdout } = await execute(file, args, {
      maxBuffer: 64 << 20,
      ...options,
      env: { ...SYSTEM_ENV, ...options.env },
    });
    return String(stdout);
  } catch (error) {
    const { stderr = '', stdout = '' } = error as { stderr?: string; stdout?: string };
    throw new Error(`${argv.join(' ')} failed: ${gist(stdout, stderr)}`, { cause: error });
  }
}
