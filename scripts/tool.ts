// Runs development tools of node_modules and says how long each took; shared by the task scripts.
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..');

export interface ToolRun {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
}

/** Resolves with the exit code; output goes to the terminal as it comes, or is shown at the end when `quiet` and failed. */
export async function runTool({ name, argv, env }: ToolRun, { quiet = false } = {}): Promise<number> {
  const [tool, ...args] = argv;
  const started = Date.now();
  const file = tool === 'node' ? process.execPath : join(ROOT, 'node_modules', '.bin', tool);
  const child = spawn(file, args, {
    cwd: ROOT,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  const output: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => output.push(chunk));
  const code = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (exitCode) => resolve(exitCode ?? 1));
  });
  if (quiet && code !== 0) process.stdout.write(Buffer.concat(output));
  console.log(`${code === 0 ? 'ok  ' : 'FAIL'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  return code;
}

/** Several tools one after another; true when all succeeded. */
export async function runTools(runs: readonly ToolRun[], options: { quiet?: boolean } = {}): Promise<boolean> {
  let good = true;
  for (const run of runs) good = (await runTool(run, options)) === 0 && good;
  return good;
}
