// lighter exec beside lxc exec: streams, exit codes, terminals, signals.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { type Ended, ended, StockClient } from '../engine/stock-client.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { OwnClient } from './own-client.ts';

const NAME = `cx${process.pid}`;

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'script', 'python3'] }, 'lighter exec', () => {
  let daemon: TestDaemon;
  let stock: StockClient;
  let own: OwnClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    stock = await StockClient.for(daemon);
    own = await OwnClient.for(daemon.socketPath, join(daemon.root, 'own'));
    await daemon.addImage();
    await daemon.launch(NAME);
    await daemon.ready(NAME);
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  describe('says and ends as lxc does', () => {
    it.each([
      [['--', 'sh', '-c', 'echo out; echo err >&2; exit 7']],
      [['--', 'sh', '-c', 'pwd; id -u; id -g; echo $HOME $USER $LANG']],
      [['--user', '1000', '--group', '1001', '--cwd', '/tmp', '--', 'sh', '-c', 'pwd; id -u; id -g; exit 3']],
      [['--env', 'A=b c', '--env', 'D=e=f', '--', 'sh', '-c', 'echo "$A|$D"']],
      [['-n', '--', 'cat']],
      [['--', '/nowhere']],
      [['--', '/etc/passwd']],
      [['--', 'sh', '-c', 'kill -9 $$']],
      [['-t', '-T', '--', 'true']],
      [['--', 'cat']],
      [['--mode', 'non-interactive', '--', 'sh', '-c', 'test -t 0; echo $?']],
    ])('%j', async (args) => {
      const expected = await stock.ends(['exec', NAME, ...args], 'some input\n');

      const got = await own.ends(['exec', NAME, ...args], 'some input\n');

      const told = ({ code, stdout, stderr }: Ended) => ({ code, stdout: stdout.toString(), stderr });
      expect(told(got)).toEqual(told(expected));
    });
  });

  it('passes megabytes on unchanged, and ends when it is told to', async () => {
    const content = randomBytes(20 * 1024 * 1024);

    const { code, stdout } = await own.ends(['exec', NAME, '--', 'cat'], content);

    expect(code).toBe(0);
    expect(stdout.equals(content)).toBe(true);
  });

  it('does not end with its input, nor wait for it', async () => {
    expect((await ended(own.spawn('exec', NAME, '--', 'sh', '-c', 'sleep 1; echo later'), '')).stdout.toString()).toBe(
      'later\n',
    );
    expect((await ended(own.spawn('exec', NAME, '--', 'echo', 'at once'), null)).code).toBe(0);
  });

  it('gives a terminal of the right size, follows it, and hands keys over', async () => {
    const program = `
import fcntl, os, pty, struct, sys, termios, time
def size(fd, rows, cols): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.2)
    os.execv(os.environ['LIGHTER'], ['lighter', 'exec', '${NAME}', '--', 'sh', '-c', 'test -t 0 && echo tty $TERM; trap "stty size" WINCH; stty size; echo ready; until read a && test -n "$a"; do :; done; echo got $a; sleep 20; exit 5'])
size(fd, 40, 100)
seen = b''
def wait(text):
    global seen
    while text not in seen:
        seen += os.read(fd, 1000)
wait(b'ready')
size(fd, 50, 120)
time.sleep(0.5)
os.write(fd, b'x\\r')
wait(b'got x')
os.write(fd, b'\\x03')
while True:
    try: data = os.read(fd, 1000)
    except OSError: break
    if not data: break
    seen += data
_, status = os.waitpid(pid, 0)
print(seen.decode().replace('\\r', ''))
print('exit', os.waitstatus_to_exitcode(status))
`;

    const { stdout, stderr } = await ended(own.command('python3', '-c', program), null);

    expect(stderr).toBe('');
    expect(stdout.toString()).toContain('tty xterm\n40 100\nready\n');
    expect(stdout.toString()).toContain('50 120\n');
    expect(stdout.toString()).toContain('got x\n');
    expect(stdout.toString()).toContain('exit 130\n');
  });

  it('attaches to the console, and leaves it with ctrl+a q', async () => {
    const program = `
import os, pty
pid, fd = pty.fork()
if pid == 0: os.execv(os.environ['LIGHTER'], ['lighter', 'console', '${NAME}'])
seen = b''
while b'tick' not in seen: seen += os.read(fd, 1000)
os.write(fd, b'\\x01')
os.write(fd, b'q')
try:
    while os.read(fd, 1000): pass
except OSError: pass
print('exit', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

    const { stdout, stderr } = await ended(own.command('python3', '-c', program), null);

    expect(stderr).toBe('');
    expect(stdout.toString()).toBe('exit 0\n');
  });

  it('sends signals on, and ends with the program', async () => {
    const child = own.spawn(
      'exec',
      NAME,
      '--',
      'sh',
      '-c',
      'trap "echo term; exit 9" TERM; echo up; while :; do sleep 0.1; done',
    );
    let output = '';
    child.stdout?.on('data', (chunk) => (output += String(chunk)));
    const end = ended(child, null);
    await poll(() => (output.includes('up') ? true : undefined), 20, AbortSignal.timeout(10_000));

    child.kill('SIGTERM');

    expect((await end).code).toBe(9);
    expect(output).toBe('up\nterm\n');
  });

  it('tells what is wrong', async () => {
    expect(await own.ends(['exec', 'none', '--', 'true'])).toMatchObject({
      code: 1,
      stderr: 'Error: Instance not found\n',
    });
    expect((await own.ends(['exec', NAME])).stderr).toContain("missing required argument 'command'");
    expect((await own.ends(['exec', NAME, '--user', 'x', '--', 'true'])).stderr).toContain('must be a number');
  });
});
