// Nova's exceptions: raising them, what peers and users get to see, and recognising those of peers.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import { faultOf, isNova, isRemote, novaException, serializeNovaFailure } from '#src/nova/exceptions.ts';

const remote = (name: string, kwargs: Record<string, unknown> = {}, module = 'nova.exception') =>
  new RemoteError({ class: name, module, message: `text of ${name}`, args: ['a'], kwargs, tb: ['t'] });

describe('an exception', () => {
  it('fills its message and has the code of its class', () => {
    const error = novaException('ImageUnacceptable', { image_id: 'i-1', reason: new Error('no rootfs') });

    expect(error.message).toBe('Image i-1 is unacceptable: no rootfs');
    expect(error).toMatchObject({ name: 'ImageUnacceptable', code: 400, kind: 'invalid' });
    // @ts-expect-error a parameter is missing
    expect(novaException('ImageUnacceptable', { image_id: 'i-1' }).message).toBe('Image i-1 is unacceptable: none');
  });

  it('has a kind that other edges can translate', () => {
    expect(novaException('PortNotFound', { port_id: 'p' }).kind).toBe('not_found');
    expect(novaException('DevicePathInUse', { path: '/dev/vdb' }).kind).toBe('conflict');
    expect(novaException('ExtendVolumeNotSupported', {}).kind).toBe('unsupported');
    expect(novaException('ResizeError', { reason: 'x' }).kind).toBe('internal');
  });
});

describe('a failure', () => {
  it('of ours travels as Nova’s class, with its code', () => {
    const failure = serializeNovaFailure(novaException('InstanceNotReady', { instance_id: 'u' }));

    expect(failure).toMatchObject({
      class: 'InstanceNotReady',
      module: 'nova.exception',
      message: 'Instance u is not ready',
      args: ['Instance u is not ready'],
      kwargs: { instance_id: 'u', code: 400 },
    });
    expect(failure.tb.length).toBeGreaterThan(1);
  });

  it('of something unsupported is Python’s NotImplementedError', () => {
    expect(serializeNovaFailure(new AppError('unsupported', 'no suspend here'))).toEqual({
      class: 'NotImplementedError',
      module: 'builtins',
      message: 'no suspend here',
      args: ['no suspend here'],
      kwargs: {},
      tb: [],
    });
  });

  it('that is not Nova’s shows the name of its class and nothing else', () => {
    for (const error of [new TypeError('secret'), new AppError('unavailable', 'secret'), 'secret']) {
      expect(JSON.stringify(serializeNovaFailure(error))).not.toContain('secret');
    }
    expect(serializeNovaFailure(new TypeError('secret'))).toMatchObject({ class: 'TypeError', args: ['TypeError'] });
  });

  it('of a peer is passed on as the peer raised it', () => {
    const failure = serializeNovaFailure(remote('InstanceNotFound_Remote', { code: 404 }, 'nova.exception_Remote'));

    expect(failure).toEqual({
      class: 'InstanceNotFound',
      module: 'nova.exception',
      message: 'text of InstanceNotFound_Remote',
      args: ['a'],
      kwargs: { code: 404 },
      tb: ['t'],
    });
  });
});

describe('recognising', () => {
  it('knows a class and those derived from it', () => {
    const deleting = remote('UnexpectedDeletingTaskStateError');

    expect(isRemote(deleting, 'UnexpectedTaskStateError')).toBe(true);
    expect(isRemote(deleting, 'UnexpectedDeletingTaskStateError')).toBe(true);
    expect(isRemote(deleting, 'InstanceNotFound', 'InstanceUpdateConflict')).toBe(true);
    expect(isRemote(remote('UnexpectedTaskStateError'), 'UnexpectedDeletingTaskStateError')).toBe(false);
    expect(isRemote(remote('Unheard'), 'InstanceNotFound')).toBe(false);
  });

  it('tells ours from a peer’s', () => {
    const own = novaException('InstanceNotFound', { instance_id: 'u' });

    expect(isRemote(own, 'InstanceNotFound')).toBe(false);
    expect(isNova(own, 'InstanceNotFound')).toBe(true);
    expect(isNova(remote('InstanceNotFound'), 'InstanceNotFound')).toBe(true);
    expect(isNova(novaException('MigrationPreCheckError', { reason: 'x' }), 'MigrationError')).toBe(true);
    expect(isNova(new Error('InstanceNotFound'), 'InstanceNotFound')).toBe(false);
  });
});

describe('a fault', () => {
  it('shows the owner the message of a Nova exception, and details for code 500 only', () => {
    expect(faultOf(novaException('PortInUse', { port_id: 'p' }))).toEqual({
      code: 400,
      message: 'Port p is still in use',
      details: '',
    });
    expect(faultOf(novaException('ResizeError', { reason: 'x' })).details).toContain('Resize error: x');
  });

  it('hides other errors behind their class and gives administrators the chain of causes', () => {
    const fault = faultOf(new AppError('internal', 'outer', { cause: new Error('inner') }));

    expect(fault).toMatchObject({ code: 500, message: 'AppError' });
    expect(fault.details).toMatch(/outer[\s\S]*Caused by: [\s\S]*inner/);
  });

  it('takes message and code of a peer’s Nova exception, the class of any other', () => {
    expect(faultOf(remote('InstanceNotFound', { code: 404 }))).toMatchObject({
      code: 404,
      message: 'text of InstanceNotFound',
    });
    expect(faultOf(remote('DBError', {}, 'oslo_db.exception'))).toMatchObject({ code: 500, message: 'DBError' });
  });

  it('never exceeds 255 bytes and never cuts a character in two', () => {
    const { message } = faultOf(novaException('ResizeError', { reason: 'ü'.repeat(300) }));

    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(255);
    expect(message).toMatch(/^Resize error: ü+$/);
  });
});
